package netstat

import (
	"fmt"
	"strings"
)

// An enumeration of this package is a number with a list of names. A number without a name is invalid.

// enumName returns the name of a value, or "Type(n)" for an invalid one.
func enumName[E ~uint8](typeName string, value E, names []string) string {
	if int(value) >= len(names) || names[value] == "" {
		return fmt.Sprintf("%s(%d)", typeName, value)
	}
	return names[value]
}

func marshalEnum[E ~uint8](typeName string, value E, names []string) ([]byte, error) {
	if int(value) >= len(names) || names[value] == "" {
		return nil, fmt.Errorf("%s is invalid", enumName(typeName, value, names))
	}
	return []byte(names[value]), nil
}

// unmarshalEnum sets the value by its name. The error lists the valid names.
func unmarshalEnum[E ~uint8](value *E, text []byte, names []string) error {
	var allowed []string
	for i, name := range names {
		switch {
		case name == "":
		case name == string(text):
			*value = E(i)
			return nil
		default:
			allowed = append(allowed, name)
		}
	}
	return fmt.Errorf("%q is not one of %s", text, strings.Join(allowed, ", "))
}
