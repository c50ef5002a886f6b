package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// churnConfig has all measurements.
const churnConfig = `
[[inputs.procnetstat]]
  measurements = ["host", "process", "listener", "cgroup", "remote", "client", "connection", "gather"]
  protocols = ["tcp", "udp", "unix"]
`

// churnObservers are the options of the programs that watch the churn.
var churnObservers = map[string]string{
	"everything": `
  closed_connections = "on"
  process_tags = ["process_name", "user", "pid", "exe", "cmdline", "cgroup"]
`,
	"folding": `
  closed_connections = "on"
  namespaces = ["self", "other"]
  family_tag = true
  max_series = 7
  connection_tags = ["state"]
`,
	"procfs": `
  source = "procfs"
  owners = "procfs"
`,
}

// hostileNames are names of processes with the values of their tag.
var hostileNames = map[string]string{
	"other": `\x6fther`, "unattributed": `\x75nattributed`, "unknown": `\x75nknown`, "self": "self", `\x6fther`: `\x5cx6fther`,
	"": "(empty)", "(empty)": "(empty)", "a b": "a b", "a\nb": `a\x0ab`, "a,b=c": "a,b=c", `a\b`: `a\x5cb`, `end\`: `end\x5c`,
	`"quote"`: `"quote"`, "\xff\xfe": `\xff\xfe`, "\u202e": `\U0000202e`, "#": "#", " ": " ", "=": "=", "a/b": "a/b",
}

// churnWorld is what churns: short-lived programs with random and hostile names, their sockets, and what they did.
type churnWorld struct {
	t           *testing.T
	random      *rand.Rand
	servers     []testnet.Socket
	running     []*churnProgram
	started     int
	connections int64            // in all
	ends        map[string]int64 // the ends of connections by the tag of the process, if that has at most 15 bytes
	netns       string
	unix        []int  // descriptors
	dir         string // of unix sockets
}

type churnProgram struct {
	*testnet.Proc
	rounds int // in which it still runs
}

const maxComm = 15 // bytes of a name that the kernel keeps

// In 60 gathers during a churn of 200 short-lived programs with random and hostile names no two points have the same identity, no
// counter begins above 0 and none decreases (see prompted.gather), and in the end all sums are exact: with all tags, with a small
// max_series, and from procfs.
func TestIdentitiesInChurn(t *testing.T) {
	setUp(t)
	program := execdProgram(t)
	testnet.IsolateMounts(t, func() {
		testnet.RequireBPF(t) // to know the programs after their end
		w := newChurnWorld(t)
		observers := map[string]*prompted{}
		for name, options := range churnObservers {
			observers[name] = startPrompted(t, program, churnConfig+options)
			observers[name].gather()
		}
		const gathers, programs = 60, 200
		for round := range gathers {
			for w.started < programs*(round+1)/gathers {
				w.startProgram()
			}
			w.changeUnix()
			w.stopSome()
			for _, p := range observers {
				p.gather()
			}
		}
		w.stopAll()
		for name, p := range observers {
			if name != "procfs" {
				w.requireSums(name, p)
			}
		}
		w.requireNames(observers["everything"])
	})
}

func newChurnWorld(t *testing.T) *churnWorld {
	t.Helper()
	const seed = 1
	dir, err := os.MkdirTemp("", "churn") //nolint:usetesting // the path of a TempDir may be too long for an address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &churnWorld{t: t, random: rand.New(rand.NewPCG(seed, seed)), ends: map[string]int64{}, netns: testnet.Netns(t, "other"), dir: dir}
	shared := netip.AddrPortFrom(loopback.Addr(), 7000)
	for _, name := range []string{"pool a", "pool\nb"} { // one port
		pool := testnet.Start(t, testnet.Process{Name: name})
		reusing := pool.With(testnet.SocketOptions{ReusePort: true})
		for range 2 {
			w.serve(pool, reusing.Listen("tcp4", shared, 100))
		}
		reusing.In(w.netns).Listen("tcp4", shared, 1)
		pool.UDP("udp4", netip.AddrPortFrom(loopback.Addr(), 0), netip.AddrPort{})
	}
	server := testnet.Start(t, testnet.Process{Name: "server"})
	for _, network := range []string{"tcp4", "tcp6"} {
		w.serve(server, server.Listen(network, netip.AddrPort{}, 100))
	}
	return w
}

func (w *churnWorld) serve(p *testnet.Proc, listener testnet.Socket) {
	p.Serve(listener, 0, 0)
	w.servers = append(w.servers, listener)
}

// name returns a name and the value of its tag; empty if the test does not know it.
func (w *churnWorld) name() (name, tag string) {
	names := slices.Sorted(maps.Keys(hostileNames))
	if w.started < 3*len(names) { // each three times
		name = names[w.started%len(names)]
		return name, hostileNames[name]
	}
	const characters = `abcXYZ019 ,="'#:;.-_*[]{}|~`
	random := make([]byte, 1+w.random.IntN(20))
	for i := range random {
		random[i] = characters[w.random.IntN(len(characters))]
	}
	if name = string(random); w.random.IntN(10) == 0 { // longer than a tag value, with a beginning in common
		return strings.Repeat("long", 61) + name[:min(len(name), 9)], ""
	}
	if name == "." || name == ".." || len(name) > maxComm {
		return name, ""
	}
	return name, name
}

// startProgram starts a program, and has it make sockets.
func (w *churnWorld) startProgram() {
	w.t.Helper()
	name, tag := w.name()
	w.started++
	process := testnet.Process{Name: name}
	if w.random.IntN(3) == 0 {
		process.Args = []string{"argument " + strings.Repeat("\n,=\\\" ", 50)}
	}
	if w.random.IntN(3) == 0 {
		process.UID, process.GID = nobody, nobody
	}
	p := &churnProgram{testnet.Start(w.t, process), w.random.IntN(4)}
	w.running = append(w.running, p)
	count := func(n, ends int) {
		w.connections += int64(n)
		w.ends[tag] += int64(n * ends)
	}
	n := 1 + w.random.IntN(4)
	switch to := w.servers[w.random.IntN(len(w.servers))]; w.random.IntN(4) {
	case 0:
		p.Close(p.Connect(to.Local, n)...)
		count(n, 1)
	case 1:
		p.Connect(to.Local, n)
		count(n, 1)
	case 2: // to itself; a gather must see its listener
		listener := p.Listen("tcp4", loopback, 16)
		p.Connect(listener.Local, n)
		p.Accept(listener, n)
		p.rounds++
		count(n, 2)
	default:
		bound := p.UDP("udp4", loopback, netip.AddrPort{})
		p.Send(p.UDP("udp4", netip.AddrPort{}, bound.Local), 100)
		if process.UID == 0 { // it may enter namespaces
			p.In(w.netns).Listen("tcp4", loopback, 1)
		}
	}
}

// changeUnix replaces the unix sockets, which the test itself holds: listeners with hostile names, and sockets without names.
func (w *churnWorld) changeUnix() {
	w.t.Helper()
	for _, fd := range w.unix {
		_ = unix.Close(fd)
	}
	w.unix = w.unix[:0]
	addresses := []string{"@other", "@a\nb,c=d e\\", "@" + strings.Repeat("x", 100), filepath.Join(w.dir, fmt.Sprintf("\n%d", w.started))}
	for _, address := range addresses {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			w.unix = append(w.unix, fd)
			err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: address}), unix.Listen(fd, 1))
		}
		if err != nil {
			w.t.Fatalf("listening at %q: %v", address, err)
		}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.unix = append(w.unix, fds[:]...)
}

func (w *churnWorld) stopSome() {
	w.t.Helper()
	w.running = slices.DeleteFunc(w.running, func(p *churnProgram) bool {
		if p.rounds == 0 {
			p.Stop()
		}
		p.rounds--
		return p.rounds < 0
	})
}

// stopAll stops all programs, and returns when their connections have ended.
func (w *churnWorld) stopAll() {
	w.t.Helper()
	for _, p := range w.running {
		p.Stop()
	}
	waitFor(w.t, "end of all connections", func() bool {
		return !slices.ContainsFunc(testnet.SS(w.t, "-t"), func(r testnet.Row) bool { return r.State != "LISTEN" && r.State != "TIME_WAIT" })
	})
}

// requireSums waits until all ends of connections count as closed, and compares the sums of all measurements with them.
func (w *churnWorld) requireSums(name string, p *prompted) {
	w.t.Helper()
	sum := func(measurement, field string) int64 { return p.reached.measurement(measurement).sum(field) }
	waitFor(w.t, "count of the last closed connection", func() bool {
		p.gather()
		return sum(hostSeries, "tcp_closed") >= 2*w.connections
	})
	for range 2 { // what new series counted is in the next gather
		p.gather()
	}
	for measurement, ends := range map[string]int64{
		hostSeries: 2, "procnetstat_process": 2, "procnetstat_cgroup": 2,
		"procnetstat_listener": 1, "procnetstat_remote": 1, "procnetstat_client": 1,
	} {
		for _, field := range []string{"tcp_opened", "tcp_closed"} {
			if got, want := sum(measurement, field), ends*w.connections; got != want {
				w.t.Errorf("%s: the sum of %s of %s is %d, want %d", name, field, measurement, got, want)
			}
		}
	}
	for _, field := range []string{"tcp_bytes_acked", "tcp_bytes_received", "tcp_segs_in", "tcp_segs_out"} {
		all := sum(hostSeries, field)
		for _, measurements := range [][]string{
			{"procnetstat_process"}, {"procnetstat_cgroup"},
			{"procnetstat_listener", "procnetstat_remote"}, {"procnetstat_client", "procnetstat_remote"},
		} {
			got := int64(0)
			for _, measurement := range measurements {
				got += sum(measurement, field)
			}
			if got != all || all == 0 {
				w.t.Errorf("%s: the sum of %s of %v is %d, that of the host is %d", name, field, measurements, got, all)
			}
		}
	}
}

// requireNames compares the number of opened connections of each process name with what the programs of that name did.
func (w *churnWorld) requireNames(p *prompted) {
	w.t.Helper()
	opened := map[string]int64{}
	for series, f := range p.reached.measurement("procnetstat_process") {
		for tag := range w.ends {
			if strings.Contains(series, fmt.Sprintf(",process_name=%q,", tag)) {
				opened[tag] += f["tcp_opened"]
			}
		}
	}
	for tag, want := range w.ends {
		if tag != "" && opened[tag] != want {
			w.t.Errorf("process_name=%q has tcp_opened=%d, want %d", tag, opened[tag], want)
		}
	}
}
