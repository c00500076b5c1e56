// Package e2e holds edgewalk to its promises from outside: its tests build the real binary, run
// control planes and edges as processes of their own over real sockets, and then do what an admin,
// an operator, a browser and a fault would do.
//
// It owns no code of the product and imports none. What one package promises to another is tested
// beside the package.
//
// What always holds: every process that a test starts is asked to stop when the test ends, has to
// do so by itself and without a data race, and dies with the test binary.
package e2e
