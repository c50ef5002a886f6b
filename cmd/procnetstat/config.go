package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/plugins/inputs"
	"github.com/influxdata/toml"
	"github.com/influxdata/toml/ast"
)

// pluginName is the plugin's name in Telegraf's registry and in the configuration.
const pluginName = "procnetstat"

func newInput() telegraf.Input {
	return inputs.Inputs[pluginName]()
}

// loadInput makes the plugin and sets the options that the file gives. Without a file all have their defaults.
//
// The shim has a loader of its own. It is not used, because it ignores unknown keys and all tables but the first, and
// takes every $ for a variable.
func loadInput(file string) (telegraf.Input, error) {
	if file == "" {
		return newInput(), nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // which file is for the one to say who starts the program
	if err != nil {
		return nil, err
	}
	input, err := parseConfig(text, os.LookupEnv)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return input, nil
}

// parseConfig makes the plugin that the text describes: the table that would stand in telegraf.conf, and nothing else.
func parseConfig(text []byte, lookupEnv lookupEnv) (telegraf.Input, error) {
	file, err := parseTOML(text)
	if err != nil {
		return nil, err
	}
	table, err := pluginTable(file)
	if err != nil {
		return nil, err
	}
	input := newInput()
	for _, f := range fieldsOf(table) {
		if err := expandEnv(f.value, lookupEnv); err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", f.line, f.key, err)
		}
		if err := setOption(input, f); err != nil {
			return nil, err
		}
	}
	return input, nil
}

// pluginTable returns the one table that the file consists of.
func pluginTable(file *ast.Table) (*ast.Table, error) {
	all, err := onlyField(file, "", "inputs")
	if err != nil {
		return nil, err
	}
	inputsTable, ok := all.value.(*ast.Table)
	if !ok {
		return nil, fmt.Errorf(`line %d: "inputs" must be a table`, all.line)
	}
	own, err := onlyField(inputsTable, "inputs.", pluginName)
	if err != nil {
		return nil, err
	}
	switch v := own.value.(type) {
	case *ast.Table: // [inputs.procnetstat], which Telegraf takes too
		return v, nil
	case []*ast.Table:
		if len(v) > 1 {
			return nil, fmt.Errorf("line %d: a second [[inputs.procnetstat]] table; "+
				"run the program a second time for it, with a file of its own", v[1].Line)
		}
		return v[0], nil
	default:
		return nil, fmt.Errorf(`line %d: "inputs.procnetstat" must be a table`, own.line)
	}
}

// onlyField returns the field called name of a table that must have no other. The path of the table is for messages.
func onlyField(t *ast.Table, path, name string) (*field, error) {
	var found *field
	for _, f := range fieldsOf(t) {
		if f.key != name {
			return nil, fmt.Errorf("line %d: %q does not belong here; "+
				"the file holds one [[inputs.procnetstat]] table and nothing else", f.line, path+f.key)
		}
		found = f
	}
	if found == nil {
		return nil, errors.New("no [[inputs.procnetstat]] table")
	}
	return found, nil
}

// setOption sets the one option of the plugin that f names.
func setOption(input telegraf.Input, f *field) error {
	decoder := toml.Config{
		NormFieldName: toml.DefaultConfig.NormFieldName,
		MissingField:  func(_ reflect.Type, key string) error { return &unknownKeyError{key} },
	}
	// One by one, as the decoder's errors name the struct's fields, and not the keys.
	err := decoder.UnmarshalTable(&ast.Table{Fields: map[string]any{f.key: f.value}}, input)
	if err == nil {
		return nil
	}
	if e := (*toml.LineError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	if e := (*unknownKeyError)(nil); errors.As(err, &e) {
		return fmt.Errorf("line %d: %w", f.line, err)
	}
	return fmt.Errorf("line %d: %s: %w", f.line, f.source(), err)
}

type unknownKeyError struct {
	key string
}

func (e *unknownKeyError) Error() string {
	if slices.Contains(generalOptions, e.key) {
		return fmt.Sprintf("%q is an option of Telegraf and not of this program; set it in the [[inputs.execd]] table", e.key)
	}
	return fmt.Sprintf("unknown option %q; procnetstat -sample-config shows those there are", e.key)
}

// generalOptions are those that Telegraf itself handles for every input. In a plugin's table it takes them without a
// word, so they are easily left there when the table moves to a file of its own.
var generalOptions = []string{
	"alias", "always_include_global_tags", "always_include_local_tags", "collection_jitter", "collection_offset",
	"drop", "fielddrop", "fieldexclude", "fieldinclude", "fieldpass", "interval", "labels", "log_level", "metricpass",
	"name_override", "name_prefix", "name_suffix", "namedrop", "namedrop_separator", "namepass", "namepass_separator",
	"pass", "precision", "startup_error_behavior", "tagdrop", "tagexclude", "taginclude", "tagpass", "tags",
	"time_source",
}

// field is a key of a table with its value: an *ast.KeyValue, an *ast.Table or an []*ast.Table.
type field struct {
	key   string
	value any
	line  int
}

// fieldsOf returns the fields in the order of the file, so that of several mistakes the first is told.
func fieldsOf(t *ast.Table) []*field {
	fields := make([]*field, 0, len(t.Fields))
	for key, value := range t.Fields {
		fields = append(fields, &field{key: key, value: value, line: lineOf(value)})
	}
	slices.SortFunc(fields, func(a, b *field) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.key, b.key))
	})
	return fields
}

func lineOf(value any) int {
	switch v := value.(type) {
	case *ast.KeyValue:
		return v.Line
	case *ast.Table:
		return v.Line
	case []*ast.Table:
		return v[0].Line
	}
	return 0
}

// source shows the field as the file has it, as far as that is short enough for a message.
func (f *field) source() string {
	const maxLength = 60
	kv, ok := f.value.(*ast.KeyValue)
	if !ok {
		return f.key
	}
	given := strings.Join(strings.Fields(kv.Value.Source()), " ")
	if runes := []rune(given); len(runes) > maxLength {
		given = string(runes[:maxLength]) + "…"
	}
	return f.key + " = " + given
}
