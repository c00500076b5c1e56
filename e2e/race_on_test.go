//go:build race

package e2e

// raceBuilt has the processes watch for data races wherever the tests do.
const raceBuilt = true
