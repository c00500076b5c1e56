package field

import (
	"slices"
	"strings"
)

// Map holds fields by canonical name, each line apart, as replies of origins come. Its methods take
// canonical names.
type Map map[string][]string

// Get returns the first value of a field, "" without one.
func (m Map) Get(name string) string {
	if values := m[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Values returns all values of a field, in order.
func (m Map) Values(name string) []string { return m[name] }

// Set gives a field one value in place of those it had.
func (m Map) Set(name, value string) { m[name] = []string{value} }

// Del removes a field.
func (m Map) Del(name string) { delete(m, name) }

// Named is a field with all its values.
type Named struct {
	Name   string
	Values []string
}

// AppendSorted appends all fields to b, in the order of their names.
func (m Map) AppendSorted(b []Named) []Named {
	at := len(b)
	for name, values := range m {
		b = append(b, Named{name, values})
	}
	slices.SortFunc(b[at:], func(x, y Named) int { return strings.Compare(x.Name, y.Name) })
	return b
}
