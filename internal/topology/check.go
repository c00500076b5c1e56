package topology

// Violation is one broken rule.
type Violation struct {
	// Resource is the resource's name.
	Resource string
	// Field is the path of the field in the resource's message, such as `origins[1]`.
	Field string
	// Description says what is wrong and how to mend it.
	Description string
}

func (v Violation) Error() string {
	if v.Field == "" {
		return v.Resource + ": " + v.Description
	}
	return v.Resource + ": " + v.Field + ": " + v.Description
}
