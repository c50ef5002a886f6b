package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/influxdata/telegraf/plugins/aggregators"
	"github.com/influxdata/telegraf/plugins/inputs"
	"github.com/influxdata/telegraf/plugins/outputs"
	"github.com/influxdata/telegraf/plugins/parsers"
	"github.com/influxdata/telegraf/plugins/processors"
	"github.com/influxdata/telegraf/plugins/serializers"
)

// kind is a kind of plugin, with the names of those that are built in.
type kind struct {
	name    string
	plugins []string
}

func kinds() []kind {
	return []kind{
		{"inputs", sortedNames(inputs.Inputs)},
		{"outputs", sortedNames(outputs.Outputs)},
		{"processors", sortedNames(processors.Processors)},
		{"aggregators", sortedNames(aggregators.Aggregators)},
		{"parsers", sortedNames(parsers.Parsers)},
		{"serializers", sortedNames(serializers.Serializers)},
	}
}

func sortedNames[Creator any](creators map[string]Creator) []string {
	return slices.Sorted(maps.Keys(creators))
}

func kindNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// printPlugins prints the plugins of the given kinds, or of all, one a line as kind.name.
func printPlugins(w io.Writer, wanted []string) error {
	for _, name := range wanted {
		if !slices.Contains(kindNames(), name) {
			return fmt.Errorf("no kind of plugin is called %q; there are %s", name, strings.Join(kindNames(), ", "))
		}
	}
	for _, k := range kinds() {
		if len(wanted) > 0 && !slices.Contains(wanted, k.name) {
			continue
		}
		for _, plugin := range k.plugins {
			if _, err := fmt.Fprintf(w, "%s.%s\n", k.name, plugin); err != nil {
				return err
			}
		}
	}
	return nil
}
