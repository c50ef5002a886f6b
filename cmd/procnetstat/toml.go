package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"unicode/utf8"

	"github.com/influxdata/toml"
	"github.com/influxdata/toml/ast"
)

// parseTOML takes whatever telegraf.conf may hold, which is more than the parser itself takes.
func parseTOML(text []byte) (*ast.Table, error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // some editors write a byte order mark
	if !utf8.Valid(text) {
		return nil, errors.New("not valid UTF-8")
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")) // which the parser counts as two lines
	return toml.Parse(stripComments(text))
}

// stripComments removes what Telegraf removes before it parses: the parser does not take a comment wherever an array
// may have one.
func stripComments(text []byte) []byte {
	stripped := make([]byte, 0, len(text))
	for len(text) > 0 {
		n := tokenLength(text)
		if text[0] != '#' {
			stripped = append(stripped, text[:n]...)
		}
		text = text[n:]
	}
	return stripped
}

// tokenLength is the length of the comment or string that the text begins with, else 1.
func tokenLength(text []byte) int {
	if text[0] == '#' {
		if end := bytes.IndexAny(text, "\r\n"); end >= 0 { // either ends a line for the parser
			return end
		}
		return len(text)
	}
	for _, quotes := range []string{`"""`, `'''`, `"`, `'`} {
		if bytes.HasPrefix(text, []byte(quotes)) {
			return stringLength(text, quotes)
		}
	}
	return 1
}

func stringLength(text []byte, quotes string) int {
	for i := len(quotes); i < len(text); i++ {
		switch {
		case bytes.HasPrefix(text[i:], []byte(quotes)):
			return i + len(quotes)
		case (text[i] == '\n' || text[i] == '\r') && len(quotes) == 1:
			return i // the string lacks its end, which is for the parser to tell
		case text[i] == '\\' && quotes[0] == '"':
			i++
		}
	}
	return len(text)
}

type lookupEnv func(name string) (value string, found bool)

// expandEnv replaces environment variables in all strings of a node of the syntax tree. At this point, and not in the
// text, because so a value needs no escaping, whatever it holds.
func expandEnv(node any, lookup lookupEnv) error {
	switch n := node.(type) {
	case *ast.String:
		expanded, err := expandString(n.Value, lookup)
		n.Value = expanded
		return err
	case *ast.Array:
		for _, v := range n.Value {
			if err := expandEnv(v, lookup); err != nil {
				return err
			}
		}
	case *ast.KeyValue:
		return expandEnv(n.Value, lookup)
	case *ast.Table:
		for _, f := range fieldsOf(n) {
			if err := expandEnv(f.value, lookup); err != nil {
				return err
			}
		}
	case []*ast.Table:
		for _, t := range n {
			if err := expandEnv(t, lookup); err != nil {
				return err
			}
		}
	}
	return nil
}

// envReference matches ${NAME}, ${NAME:-default}, and either after a $, which makes it plain text.
var envReference = regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^${}]*))?\}`)

// expandString expands as Telegraf does, with two differences. A $ that begins nothing of the above stays, as patterns
// are full of them: Telegraf takes $NAME too, and $$ for $. And a variable that is not set is an error: Telegraf leaves
// the reference there, for the plugin to take as it is.
func expandString(s string, lookup lookupEnv) (string, error) {
	var missing error
	expanded := envReference.ReplaceAllStringFunc(s, func(reference string) string {
		if reference[:2] == "$$" {
			return reference[1:]
		}
		match := envReference.FindStringSubmatch(reference)
		name, hasDefault, defaultValue := match[1], match[2] != "", match[3]
		value, found := lookup(name)
		switch {
		case hasDefault && value == "":
			return defaultValue
		case !found && missing == nil:
			missing = fmt.Errorf("environment variable %q is not set; ${%s:-} would allow that", name, name)
		}
		return value
	})
	return expanded, missing
}
