//go:build !race

package edgehttp

const raceDetector = false
