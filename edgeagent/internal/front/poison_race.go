//go:build race

package front

// poison says that the memory of a request is overwritten once its handler has returned, so that a
// test finds code that has kept a string of it.
const poison = true
