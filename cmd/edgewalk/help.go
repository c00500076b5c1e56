package main

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// helpWidth is how many columns help has at most.
const helpWidth = 80

// fitHelp makes the help of a command and of those below it fit a screen.
func fitHelp(root *cobra.Command) {
	cobra.AddTemplateFunc("wrapText", wrapText)
	cobra.AddTemplateFunc("wrapUse", wrapUse)
	cobra.AddTemplateFunc("breakDefaults", breakDefaults)
	cobra.AddTemplateFunc("helpWidth", func() int { return helpWidth })
	usage := root.UsageTemplate()
	usage = strings.ReplaceAll(usage, ".FlagUsages | trimTrailingWhitespaces",
		".FlagUsagesWrapped helpWidth | breakDefaults | trimTrailingWhitespaces")
	usage = strings.ReplaceAll(usage, "{{.UseLine}}", "{{.UseLine | wrapUse}}")
	usage = strings.ReplaceAll(usage, `Use "{{.CommandPath}}`, `"{{.CommandPath}}`)
	usage = strings.ReplaceAll(usage, " for more information about a command.", " tells more.")
	root.SetUsageTemplate(usage)
	root.SetHelpTemplate(`{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces | wrapText}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}`)
}

// wrapText breaks paragraphs into lines that fit. Lines that are indented stay as they are.
func wrapText(text string) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString("\n\n")
		}
		if strings.HasPrefix(paragraph, " ") {
			b.WriteString(paragraph)
			continue
		}
		column := 0
		for j, word := range strings.Fields(paragraph) {
			n := len([]rune(word))
			switch {
			case j == 0:
			case column+1+n > helpWidth:
				b.WriteByte('\n')
				column = 0
			default:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += n
		}
	}
	return b.String()
}

// wrapUse breaks a line of usage before an alternative.
func wrapUse(line string) string {
	const indent = 2
	if at := strings.LastIndex(line[:min(len(line), helpWidth-indent)], " | "); len(line) > helpWidth-indent && at > 0 {
		return line[:at] + "\n      " + line[at+1:]
	}
	return line
}

// beforeDefault is the last line of a flag's help: its variable, and its default behind that.
var beforeDefault = regexp.MustCompile(`(?m)^( +)(\(\S+\)) (\(default .*\))$`)

// breakDefaults gives defaults lines of their own where they do not fit. The flag package breaks no
// line behind a word that is as long as the line may be.
func breakDefaults(usages string) string {
	return beforeDefault.ReplaceAllStringFunc(usages, func(line string) string {
		if len(line) <= helpWidth {
			return line
		}
		return beforeDefault.ReplaceAllString(line, "$1$2\n$1$3")
	})
}
