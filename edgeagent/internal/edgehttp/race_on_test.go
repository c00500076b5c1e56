//go:build race

package edgehttp

// raceDetector: it has pools forget some of what they are given.
const raceDetector = true
