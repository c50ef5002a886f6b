package e2e

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/telegraf/plugins/parsers/influx"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

const otlpDocument = "../../docs/OPENTELEMETRY.md"

// otlpReceiver is a Telegraf that receives OTLP and writes what it receives to a file.
const otlpReceiver = `
[agent]
  omit_hostname = true
  skip_processors_after_aggregators = true
  flush_interval = "50ms"
[[inputs.opentelemetry]]
  service_address = "localhost:4317"
[[outputs.file]]
  files = [%q]
  data_format = "influx"
`

// otlpSender sends to the receiver, by the configuration of the document, and to a second receiver as JSON.
const otlpSender = `
[global_tags]
  dc = "eu"
[agent]
  interval = "500ms"
  precision = "1ns"
  hostname = "web1"
  flush_interval = "50ms"
  skip_processors_after_aggregators = true
[[outputs.opentelemetry]]
  service_address = %q
  encoding_type = "json"
  compression = "none"
  metric_buffer_limit = 200000
`

// The second input only adds the tags that it takes options for.
const (
	otlpInputs = `
[[inputs.procnetstat]]
  measurements = ["host", "process", "listener", "cgroup", "remote", "client", "connection", "gather"]
  protocols = ["tcp", "udp", "udplite", "raw", "icmp", "unix"]
  details = ["rtt", "traffic", "lifecycle", "connects", "stalls"]
  process_tags = ["process_name", "user", "pid", "exe", "cmdline", "systemd_unit", "container_id", "pod_uid", "cgroup"]
`
	otlpTagInputs = `
[[inputs.procnetstat]]
  measurements = ["host"]
  namespaces = ["all"]
  family_tag = true
`
)

// With the configuration of the document, an OTLP receiver has the numbers of ss under the documented names and types.
func TestOpenTelemetry(t *testing.T) {
	setUp(t)
	program, procnetstat := stockTelegraf(t), execdProgram(t)
	testnet.Isolate(t, func() {
		received := filepath.Join(t.TempDir(), "received")
		receiver := startServer(t, program, "--config", writeConfig(t, fmt.Sprintf(otlpReceiver, received)))
		waitFor(t, "OTLP receiver", func() bool {
			receiver.check()
			conn, err := net.Dial("tcp", "localhost:4317")
			return err == nil && conn.Close() == nil
		})
		wire := startOTLPWire(t)
		document := readFile(t, otlpDocument)
		config := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(document)
		require.Len(t, config, 2)
		sender := startServer(t, program, "--config", writeConfig(t, fmt.Sprintf(otlpSender, wire.url)+config[1]+
			execdConfig(t, procnetstat, "STDIN", otlpInputs)+execdConfig(t, procnetstat, "STDIN", otlpTagInputs)))
		otlp := followOTLP(t, received, receiver, sender)
		otlp.gatherAfter(0) // counters count from here

		service := startOTLPService(t)
		g, ss := otlp.measure(service)
		for state, name := range otlpStates {
			point := g.find(t, "system.network.connection.count", map[string]string{"host.name": "web1", "network.connection.state": name})
			require.Equal(t, float64(ss.states[state]), point.value, "connections in the state %s", name)
			require.Positive(t, ss.states[state], "no connection in the state %s", state)
		}
		service.requireReceived(g, ss)

		names := readOTLPDocument(t, document)
		names.requireReceived(t, otlp.seen)
		wire.requireDocumented(names)
		for _, s := range otlp.servers {
			s.check()
			require.NotContains(t, s.log(), " E! ")
		}
	})
}

// otlpStates are the names of the conventions by those of testnet.
var otlpStates = map[string]string{
	"ESTABLISHED": "established", "SYN_SENT": "syn_sent", "SYN_RECV": "syn_received", "FIN_WAIT1": "fin_wait_1",
	"FIN_WAIT2": "fin_wait_2", "TIME_WAIT": "time_wait", "CLOSE_WAIT": "close_wait", "LAST_ACK": "last_ack", "LISTEN": "listen",
	"CLOSING": "closing",
}

func writeConfig(t *testing.T, config string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "telegraf.conf")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	return file
}

// otlpPoint is a point as the receiver wrote it.
type otlpPoint struct {
	name       string
	attributes map[string]string
	kind       string // gauge or counter
	value      float64
}

type otlpPoints []otlpPoint

// find returns the only point of a name with the attributes.
func (points otlpPoints) find(t *testing.T, name string, attributes map[string]string) otlpPoint {
	t.Helper()
	var found otlpPoints
	for _, p := range points {
		if p.name == name && contains(p.attributes, attributes) {
			found = append(found, p)
		}
	}
	require.Len(t, found, 1, "%s with %v", name, attributes)
	return found[0]
}

func contains(all, some map[string]string) bool {
	for key, value := range some {
		if got, found := all[key]; !found || got != value {
			return false
		}
	}
	return true
}

// otlpFile is the file that the receiver writes.
type otlpFile struct {
	t       *testing.T
	file    *os.File
	unread  []byte // the beginning of a line
	servers []*server
	seen    otlpPoints           // all
	gathers map[int64]otlpPoints // those of the first input, by time
}

func followOTLP(t *testing.T, name string, servers ...*server) *otlpFile {
	t.Helper()
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { _ = file.Close() })
	return &otlpFile{t: t, file: file, servers: servers, gathers: map[int64]otlpPoints{}}
}

// gatherAfter waits for two gathers after a time, and returns the time of the first, which is complete.
func (f *otlpFile) gatherAfter(after int64) int64 {
	f.t.Helper()
	var times []int64
	waitFor(f.t, "two gathers of the OTLP receiver", func() bool {
		for _, s := range f.servers {
			s.check()
		}
		f.read()
		times = slices.DeleteFunc(slices.Sorted(maps.Keys(f.gathers)), func(at int64) bool { return at <= after })
		return len(times) > 1
	})
	return times[0]
}

func (f *otlpFile) read() {
	f.t.Helper()
	more, err := io.ReadAll(f.file)
	require.NoError(f.t, err)
	text := slices.Concat(f.unread, more)
	end := bytes.LastIndexByte(text, '\n') + 1
	f.unread = text[end:]
	parser := influx.Parser{}
	require.NoError(f.t, parser.Init())
	metrics, err := parser.Parse(text[:end])
	require.NoError(f.t, err)
	for _, m := range metrics {
		for kind, value := range m.Fields() {
			number, isFloat := value.(float64)
			if integer, isInteger := value.(int64); isInteger {
				number, isFloat = float64(integer), true
			}
			require.True(f.t, isFloat, "%s has %s=%v", m.Name(), kind, value)
			point := otlpPoint{m.Name(), m.Tags(), kind, number}
			f.seen = append(f.seen, point)
			if !m.HasTag("network.type") {
				at := m.Time().UnixNano()
				f.gathers[at] = append(f.gathers[at], point)
			}
		}
	}
}

// measure returns a gather during which the output of ss does not change, and that output.
func (f *otlpFile) measure(s *otlpService) (otlpPoints, otlpSS) {
	f.t.Helper()
	before := s.ss()
	for end := time.Now().Add(waitLimit); ; {
		at := f.gatherAfter(time.Now().UnixNano())
		at = f.gatherAfter(at) // its time may be its end
		after := s.ss()
		if before.equal(after) {
			return f.gathers[at], after
		}
		require.True(f.t, time.Now().Before(end), "the sockets changed during every gather: %v", after)
		before = after
	}
}

// otlpSS is what ss shows: the connections by state, and of the service the highest round-trip time and the sums of its counters.
type otlpSS struct {
	states   map[string]int
	rtt      int64
	counters fields
}

func (s otlpSS) equal(other otlpSS) bool {
	return maps.Equal(s.states, other.states) && s.rtt == other.rtt && maps.Equal(s.counters, other.counters)
}

// otlpService is a service in a container of a pod.
type otlpService struct {
	t      *testing.T
	server *testnet.Proc
	port   string
}

const (
	otlpPod       = "8f2c4f4e-1d7b-4c3a-9a55-0d6a1e2b3c4d"
	otlpContainer = "3b1f0a9d7c5e2f4b6a8d0c1e3f5a7b9d2c4e6f8a0b1d3c5e7f9a2b4c6d8e0f1a"
	otlpCgroup    = "kubepods.slice/kubepods-pod8f2c4f4e_1d7b_4c3a_9a55_0d6a1e2b3c4d.slice/cri-containerd-" + otlpContainer + ".scope"
)

func startOTLPService(t *testing.T) *otlpService {
	t.Helper()
	testnet.States(t, "tcp4")
	testnet.UDP(t)
	testnet.Unix(t)
	dir, _ := testnet.Cgroup(t, otlpCgroup)
	server := testnet.Start(t, testnet.Process{Name: "orders", Cgroup: dir})
	client := testnet.Start(t, testnet.Process{Name: "users", UID: nobody, GID: nobody})
	listener := server.With(testnet.SocketOptions{Device: "lo"}).Listen("tcp4", loopback, 16)
	connected := client.Connect(listener.Local, connections)
	for _, s := range server.Accept(listener, connections) {
		server.Send(s, responseBytes)
	}
	for _, c := range connected {
		client.Receive(c, responseBytes)
		client.Send(c, requestBytes)
	}
	client.Close(connected[:closedConnections]...)
	return &otlpService{t, server, strconv.Itoa(int(listener.Local.Port()))}
}

func (s *otlpService) ss() otlpSS {
	s.t.Helper()
	snapshot := takeSnapshot(s.t)
	shown := otlpSS{states: snapshot.states(), counters: fields{}}
	for _, r := range snapshot.sockets {
		if len(r.Processes) == 0 || r.Processes[0].PID != s.server.PID {
			continue
		}
		if r.State == "ESTABLISHED" {
			shown.rtt = max(shown.rtt, r.rtt)
		}
		for name, value := range r.counters {
			shown.counters[name] += value
		}
	}
	return shown
}

// requireReceived checks the metrics of the service.
func (s *otlpService) requireReceived(g otlpPoints, ss otlpSS) {
	process := func(more ...string) map[string]string {
		attributes := map[string]string{
			"host.name": "web1", "process.executable.name": "orders", "process.user.name": userOf(s.t, s.server.PID),
			"process.pid": strconv.Itoa(s.server.PID), "container.id": otlpContainer, "k8s.pod.uid": otlpPod, "network.transport": "tcp",
		}
		for i := 0; i < len(more); i += 2 {
			attributes[more[i]] = more[i+1]
		}
		return attributes
	}
	listener := map[string]string{
		"process.executable.name": "orders", "network.transport": "tcp", "network.local.address": "127.0.0.1",
		"network.local.port": s.port, "network.interface.name": "lo",
	}
	for _, want := range []struct {
		name       string
		attributes map[string]string
		kind       string
		value      float64
	}{
		{"process.network.io", process("network.io.direction", "transmit"), "counter", float64(ss.counters["tcp_bytes_acked"])},
		{"process.network.io", process("network.io.direction", "receive"), "counter", float64(ss.counters["tcp_bytes_received"])},
		{"procnetstat.process.segment.count", process("network.io.direction", "receive"), "counter", float64(ss.counters["tcp_segs_in"])},
		{"procnetstat.process.connection.opened", process(), "counter", connections},
		{
			"procnetstat.process.connection.count", process("network.connection.state", "established"), "gauge",
			connections - closedConnections,
		},
		{"procnetstat.process.connection.count", process("network.connection.state", "close_wait"), "gauge", closedConnections},
		{
			"procnetstat.process.queue.size", process("network.io.direction", "receive"), "gauge",
			connections*requestBytes + closedConnections, // a FIN counts as a byte
		},
		{"procnetstat.process.rtt.max", process(), "gauge", float64(ss.rtt) / 1e6},
		{"procnetstat.listener.accept_queue_limit", listener, "gauge", 16},
		{"procnetstat.listener.connection.opened", listener, "counter", connections},
	} {
		got := g.find(s.t, want.name, want.attributes)
		require.Equal(s.t, want.kind, got.kind, want.name)
		require.InDelta(s.t, want.value, got.value, 1e-9, "%s %v", want.name, want.attributes)
		require.Positive(s.t, got.value, want.name)
	}
}

// otlpNames is what the document says.
type otlpNames struct {
	// metrics has the type by name; of group fields the name is without the prefix of the group, and has the attributes after it.
	metrics    map[string]string
	attributes map[string]bool // by name: whether they are of the resource
}

var (
	otlpGroupRow     = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| `([a-z0-9_.]+)` \\| (gauge|sum) \\| \\S+ \\|(?: `(\\w+)`)? *\\|$")
	otlpOwnRow       = regexp.MustCompile(`(?m)^\| procnetstat(\w*) \| ([^|]*) \| ([^|]*)\|$`)
	otlpAttributeRow = regexp.MustCompile("(?m)^\\| (`[a-z_`, ]+`) \\| (`[^|]*) \\| ([^|]*)\\|$")
	inBackticks      = regexp.MustCompile("`([^`]+)`")
)

func readOTLPDocument(t *testing.T, document string) otlpNames {
	t.Helper()
	names := otlpNames{metrics: map[string]string{}, attributes: map[string]bool{
		"network.io.direction": false, "network.connection.state": false, "error.type": false, "dc": false,
	}}
	for _, row := range otlpGroupRow.FindAllStringSubmatch(document, -1) {
		transport, _, _ := strings.Cut(row[1], "_")
		names.metrics[row[2]+" "+transport+" "+row[4]] = row[3]
	}
	require.Len(t, names.metrics, 52)
	for _, row := range otlpOwnRow.FindAllStringSubmatch(document, -1) {
		group := strings.TrimPrefix(row[1], "_")
		if group == "" {
			group = "host"
		}
		for i, kind := range []string{"gauge", "sum"} {
			for _, field := range inBackticks.FindAllStringSubmatch(row[2+i], -1) {
				names.metrics["procnetstat."+group+"."+field[1]] = kind
			}
		}
	}
	require.Greater(t, len(names.metrics), 60)
	for _, row := range otlpAttributeRow.FindAllStringSubmatch(document, -1) {
		tags, attributes := inBackticks.FindAllStringSubmatch(row[1], -1), inBackticks.FindAllStringSubmatch(row[2], -1)
		for i, tag := range tags {
			name := "procnetstat." + tag[1]
			if attributes[0][1] != "procnetstat." {
				name = attributes[i][1]
			}
			names.attributes[name] = strings.HasPrefix(row[3], "R")
		}
	}
	require.Greater(t, len(names.attributes), 20)
	return names
}

// groupPrefix matches the beginning of the metrics of groups.
var groupPrefix = regexp.MustCompile(`^(?:procnetstat\.(?:host|process|listener|cgroup|remote|client)|system\.network|process)\.`)

// requireReceived checks that exactly what the document says was received.
func (n otlpNames) requireReceived(t *testing.T, points otlpPoints) {
	t.Helper()
	metrics, attributes := map[string]string{}, map[string]bool{}
	for _, p := range points {
		name := p.name
		if _, own := n.metrics[name]; !own {
			name = groupPrefix.ReplaceAllString(name, "")
			name += " " + p.attributes["network.transport"] + " " + p.attributes["network.connection.state"] +
				p.attributes["error.type"] + p.attributes["network.io.direction"]
		}
		metrics[name] = map[string]string{"gauge": "gauge", "counter": "sum"}[p.kind]
		for attribute := range p.attributes {
			attributes[attribute] = true
		}
	}
	want := maps.Clone(n.metrics)
	for _, limit := range []string{"tcp_orphan_limit", "tcp_mem_limit_bytes"} { // only the host's first network namespace has them
		require.Contains(t, want, "procnetstat.host."+limit)
		delete(want, "procnetstat.host."+limit)
	}
	require.Equal(t, want, metrics)
	require.Equal(t, slices.Sorted(maps.Keys(n.attributes)), slices.Sorted(maps.Keys(attributes)))
}
