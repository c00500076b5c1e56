package field

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
