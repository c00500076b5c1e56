// Package check holds the tests of what is shipped for engines that are not here: the Helm chart
// and the compose file. It is a module of its own, so that its libraries are nobody's dependency.
package check
