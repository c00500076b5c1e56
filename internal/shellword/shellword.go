// Package shellword writes words of commands that people paste into a shell.
package shellword

import "strings"

// plain are the characters that mean nothing to a shell, wherever they stand in a word.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@,=%+"

// Quote returns a word as a POSIX shell reads it back: in quotes if it has to be.
func Quote(word string) string {
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
