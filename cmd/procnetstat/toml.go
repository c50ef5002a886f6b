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

// parseTOML parses what Telegraf accepts in telegraf.conf, which is more than the TOML parser accepts.
func parseTOML(text []byte) (*ast.Table, error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // some editors write a byte order mark
	if !utf8.Valid(text) {
		return nil, errors.New("not valid UTF-8")
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")) // the parser counts CR LF as two lines
	return toml.Parse(stripComments(text))
}

// stripComments removes comments, as Telegraf does before it parses: the parser rejects some comments in arrays.
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

// tokenLength returns the length of the comment or string at the start of the text, else 1.
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
			return i // unterminated: the parser reports it
		case text[i] == '\\' && quotes[0] == '"':
			i++
		}
	}
	return len(text)
}

type lookupEnv func(name string) (value string, found bool)

// expandEnv replaces environment variables in all strings of a node of the syntax tree. It does so after parsing, so that
// values need no escaping.
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

// envReference matches ${NAME} and ${NAME:-default}, and either one escaped with a preceding $.
var envReference = regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^${}]*))?\}`)

// expandString expands variables as Telegraf does, with two differences. Any other $ is literal, because regular expressions
// contain it: Telegraf also expands $NAME, and replaces $$ by $. An unset variable is an error: Telegraf leaves the
// reference in the value.
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
			missing = fmt.Errorf("environment variable %q is not set; use ${%s:-} for an empty default", name, name)
		}
		return value
	})
	return expanded, missing
}
