package procnetstat

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/influxdata/telegraf"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A gather of a host that has everything emits what the schema names, of the types that it names, and nothing else.
func TestSchemaIsWhatIsEmitted(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		container, _ := testnet.Cgroup(t, "docker-"+strings.Repeat("5c", 32)+".scope")
		pod, _ := testnet.Cgroup(t, "kubepods-pod0a1b2c3d_0000_1111_2222_333344445555.slice")
		server := testnet.Start(t, testnet.Process{Name: "server", Cgroup: container})
		client := testnet.Start(t, testnet.Process{Name: "client", Cgroup: pod})
		loopback := netip.MustParseAddrPort("127.0.0.1:0")
		listener := server.With(testnet.SocketOptions{Device: "lo"}).Listen("tcp4", loopback, 16)
		datagrams := server.UDP("udp4", loopback, netip.AddrPort{})
		client.UDP("udp4", netip.AddrPort{}, datagrams.Local)
		testnet.Unix(t)
		l := start(t, fmt.Sprintf(`
			namespaces = ["all"]
			measurements = [%s]
			details = [%s]
			protocols = [%s]
			process_tags = [%s]
			connection_tags = ["process_name", "user", "systemd_unit", "container_id", "pod_uid", "cgroup"]`,
			quoted(allMeasurements), quoted(detailNames), quoted(allProtocols), quoted(allProcessTags)))
		emitted := map[string]bool{}
		add := func(g gathered) {
			for _, m := range g.metrics {
				for tag := range m.Tags() {
					isField := func(f field) bool { return f.name == tag }
					if m.Name() != connectionSchema.name || !slices.ContainsFunc(connectionSchema.fields, isField) {
						emitted[m.Name()+" tag "+tag] = true
					}
				}
				for field := range m.Fields() {
					emitted[m.Name()+" "+typeNames[m.Type()]+" "+field] = true
				}
			}
		}
		add(l.gather())
		ends := client.Connect(listener.Local, 4)
		accepted := server.Accept(listener, 4)
		add(l.gather())
		client.Close(ends[:2]...)
		server.Close(accepted...)
		eventually(t, func() bool { // their ends are reported a moment later
			g := l.gather()
			add(g)
			return g.one("procnetstat", "netns=self")["tcp_closed"] >= 4
		})
		add(start(t, `family_tag = true`).gather())
		const folded = "max_series = 1\nmeasurements = [\"remote\"]\nprotocols = [\"tcp\", \"udplite\"]"
		add(start(t, folded).gather())                                       // UDP-Lite
		t.Setenv("HOST_PROC", filepath.Join("testcases", "default", "proc")) // limits of the host's first namespace
		add(start(t, `namespaces = ["self"]`).gather())

		want := map[string]bool{}
		for _, m := range schema {
			fields := slices.DeleteFunc(slices.Clone(m.fields), func(f field) bool { return f.needs == needsConnects })
			for _, f := range m.groupFields(everyDetail) {
				if f.connects { // see TestSchemaOfConnects: BPF programs see the initial PID namespace
					continue
				}
				if f.tcpFields&^tcpFieldsOfKernel(t) != 0 { // absent, but in a gather without connections
					for _, kind := range typeNames {
						delete(emitted, m.name+" "+kind+" "+f.name)
					}
					continue
				}
				fields = append(fields, f.field)
			}
			for _, f := range fields {
				want[m.name+" "+strings.Replace(f.typeName(), "value", "gauge", 1)+" "+f.name] = true
			}
			for _, tag := range m.tags {
				want[m.name+" tag "+tag.name] = true
			}
			if m != &gatherSchema {
				want[m.name+" tag "+netNSTag.name] = true
			}
		}
		require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(emitted)))
	})
}

// With BPF there are the fields of the schema that need it, in a gather in which connections have been established.
func TestSchemaOfConnects(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		l := start(t, fmt.Sprintf("measurements = [%s]\ndetails = [\"connects\"]", quoted(allMeasurements)))
		l.gather()
		client.Connect(listener.Local, 4)
		server.Accept(listener, 4)
		g := l.gather()
		for _, m := range schema {
			emitted := map[string]bool{}
			for _, metric := range g.metrics {
				for field := range metric.Fields() {
					if metric.Name() == m.name {
						emitted[typeNames[metric.Type()]+" "+field] = true
					}
				}
			}
			fields := slices.DeleteFunc(slices.Clone(m.fields), func(f field) bool { return f.needs != needsConnects })
			for _, f := range m.groupFields(detailConnects) {
				if f.connects {
					fields = append(fields, f.field)
				}
			}
			for _, f := range fields {
				require.Contains(t, emitted, f.typeName()+" "+f.name, m.name)
			}
			for _, f := range allGroupFields {
				if slices.Contains(m.without, f.name) {
					require.NotContains(t, emitted, f.typeName()+" "+f.name, m.name)
				}
			}
		}
	})
}

var typeNames = map[telegraf.ValueType]string{telegraf.Gauge: "gauge", telegraf.Counter: "counter"}

// quoted returns a list in TOML.
func quoted(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return `"` + strings.Join(names, `", "`) + `"`
}
