package main

import (
	_ "embed"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/plugins/aggregators"
	"github.com/influxdata/telegraf/plugins/inputs"
	"github.com/influxdata/telegraf/plugins/outputs"
	"github.com/influxdata/telegraf/plugins/processors"
)

//go:embed agent.conf
var agentSample string

const globalTagsSample = `# Tags for all metrics, as key = "value".
[global_tags]
  # dc = "us-east-1"
`

// section is a part of the configuration that has plugins, with their samples by name.
type section struct {
	name    string
	samples map[string]string
	// active are the plugins whose samples are not commented out when no filter says which ones are wanted.
	active []string
}

func pluginSections() []section {
	return []section{
		{name: "outputs", samples: samplesOf(outputs.Outputs)},
		{name: "processors", samples: samplesOf(processors.Processors)},
		{name: "aggregators", samples: samplesOf(aggregators.Aggregators)},
		{name: "inputs", samples: samplesOf(inputs.Inputs), active: []string{"procnetstat"}},
	}
}

func samplesOf[C ~func() P, P telegraf.PluginDescriber](creators map[string]C) map[string]string {
	samples := make(map[string]string, len(creators))
	for name, create := range creators {
		samples[name] = create().SampleConfig()
	}
	return samples
}

// printSample prints a configuration of the named sections with the named plugins, by section; none named means all.
func printSample(w io.Writer, names []string, plugins map[string][]string) error {
	sections := pluginSections()
	if err := checkNames(sections, names, plugins); err != nil {
		return err
	}
	var sample strings.Builder
	wanted := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	if wanted("global_tags") {
		sample.WriteString(globalTagsSample)
	}
	if wanted("agent") {
		sample.WriteString("\n" + agentSample)
	}
	for _, s := range sections {
		if wanted(s.name) {
			s.write(&sample, plugins[s.name])
		}
	}
	_, err := io.WriteString(w, sample.String())
	return err
}

func checkNames(sections []section, names []string, plugins map[string][]string) error {
	known := []string{"global_tags", "agent"}
	for _, s := range sections {
		known = append(known, s.name)
		for _, plugin := range plugins[s.name] {
			if _, found := s.samples[plugin]; !found {
				return fmt.Errorf("no plugin %q in %s; see the plugins command", plugin, s.name)
			}
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("no section %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

func (s section) write(b *strings.Builder, plugins []string) {
	active := s.active
	if len(plugins) > 0 {
		active = plugins
	} else {
		plugins = slices.Collect(maps.Keys(s.samples))
	}
	fmt.Fprintf(b, "\n\n%s\n# %s\n%[1]s\n", strings.Repeat("#", 79), strings.ToUpper(s.name))
	slices.Sort(plugins)
	for _, name := range slices.Compact(plugins) {
		sample := strings.TrimRight(s.samples[name], "\n")
		if sample == "" {
			sample = fmt.Sprintf("[[%s.%s]]\n  # no options of its own", s.name, name)
		}
		if !slices.Contains(active, name) {
			sample = commentOut(sample)
		}
		b.WriteString("\n" + sample + "\n")
	}
}

func commentOut(sample string) string {
	lines := strings.Split(sample, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight("# "+line, " ")
	}
	return strings.Join(lines, "\n")
}
