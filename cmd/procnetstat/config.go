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

// loadInput creates the plugin and sets the options of the file. Without a file, all options have their defaults.
//
// It does not use the loader of the shim, which ignores unknown keys and all tables but the first, and expands every $ as a
// variable.
func loadInput(file string) (telegraf.Input, error) {
	if file == "" {
		return newInput(), nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // the user chooses the file
	if err != nil {
		return nil, err
	}
	input, err := parseConfig(text, os.LookupEnv)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return input, nil
}

// parseConfig creates the plugin from its table of telegraf.conf. The text may contain nothing else.
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

// pluginTable returns the [[inputs.procnetstat]] table of a file that contains nothing else.
func pluginTable(file *ast.Table) (*ast.Table, error) {
	inputsField, err := onlyField(file, "", "inputs")
	if err != nil {
		return nil, err
	}
	inputsTable, ok := inputsField.value.(*ast.Table)
	if !ok {
		return nil, fmt.Errorf(`line %d: "inputs" must be a table`, inputsField.line)
	}
	pluginField, err := onlyField(inputsTable, "inputs.", pluginName)
	if err != nil {
		return nil, err
	}
	switch v := pluginField.value.(type) {
	case *ast.Table: // [inputs.procnetstat], which Telegraf accepts too
		return v, nil
	case []*ast.Table:
		if len(v) > 1 {
			return nil, fmt.Errorf("line %d: a second [[inputs.procnetstat]] table; "+
				"run another procnetstat with a separate file for it", v[1].Line)
		}
		return v[0], nil
	default:
		return nil, fmt.Errorf(`line %d: "inputs.procnetstat" must be a table`, pluginField.line)
	}
}

// onlyField returns the field name of a table that must have no other. path is the table's name, for error messages.
func onlyField(t *ast.Table, path, name string) (*field, error) {
	var found *field
	for _, f := range fieldsOf(t) {
		if f.key != name {
			return nil, fmt.Errorf("line %d: %q is not allowed; "+
				"the file must contain one [[inputs.procnetstat]] table and nothing else", f.line, path+f.key)
		}
		found = f
	}
	if found == nil {
		return nil, errors.New("no [[inputs.procnetstat]] table")
	}
	return found, nil
}

// setOption sets one option of the plugin.
func setOption(input telegraf.Input, f *field) error {
	decoder := toml.Config{
		NormFieldName: toml.DefaultConfig.NormFieldName,
		MissingField:  func(_ reflect.Type, key string) error { return &unknownKeyError{key} },
	}
	// Decode a table of one key: the decoder's errors name the struct field, not the key.
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
	if slices.Contains(telegrafOptions, e.key) {
		return fmt.Sprintf("%q is a Telegraf option; set it in the [[inputs.execd]] table", e.key)
	}
	return fmt.Sprintf("unknown option %q; procnetstat -sample-config lists the options", e.key)
}

// telegrafOptions are the options that Telegraf itself handles for every input. Users tend to leave them in the plugin's
// table when they move it to a separate file.
var telegrafOptions = []string{
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

// fieldsOf returns the fields in the order of the file, so that the first of several mistakes is reported.
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

// source returns the field as written in the file, truncated for error messages.
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
