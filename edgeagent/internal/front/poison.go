//go:build !race

package front

const poison = false
