package testnet

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestProcessNames(t *testing.T) {
	Isolate(t, func() {
		for _, name := range []string{"server", "two words", "a\nb", "x\xff\xfey", `q",pid=1,fd=2`, "(x) y", "kworker/0:1", "",
			"..", "no more than fifteen"} {
			t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
				p := Start(t, Process{Name: name, Args: []string{"-c", "a b"}, UID: 65534, GID: 65533})
				if comm := readProc(t, p.PID, "comm"); comm != name[:min(15, len(name))]+"\n" {
					t.Errorf("the name is %q", comm)
				}
				exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
				if err != nil {
					t.Fatal(err)
				}
				if filepath.Base(exe) != fileName(name) {
					t.Errorf("the program is %q", exe)
				}
				if cmdline := readProc(t, p.PID, "cmdline"); cmdline != exe+"\x00-c\x00a b\x00" {
					t.Errorf("the command line is %q, the program %q", cmdline, exe)
				}
				if status := readProc(t, p.PID, "status"); !strings.Contains(status, "\nUid:\t65534\t65534\t65534\t65534\nGid:\t65533\t") {
					t.Errorf("the status is\n%s", status)
				}
				if s := p.Listen("tcp4", netip.AddrPort{}, 1); s.UID != 65534 {
					t.Errorf("the socket is of user %d", s.UID)
				}
			})
		}
	})
}

func readProc(t *testing.T, pid int, file string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A process and 8 forks share a listener.
func TestFork(t *testing.T) {
	Isolate(t, func() {
		master := Start(t, Process{Name: "master"})
		listener := master.Listen("tcp4", netip.AddrPort{}, 128)
		pids := []int{master.PID}
		workers := master.Fork(8)
		for _, w := range workers {
			pids = append(pids, w.PID)
		}
		if got := holders(t)[listener.Inode]; !equalSets(got, pids) {
			t.Errorf("the listener is held by %v, want %v", got, pids)
		}
		rows := SS(t, "-ltp")
		if len(rows) != 1 || rows[0].Inode != listener.Inode || len(rows[0].Processes) != 9 {
			t.Fatalf("ss shows %+v", rows)
		}
		for _, process := range rows[0].Processes {
			if !slices.Contains(pids, process.PID) || process.Name != "master" {
				t.Errorf("ss shows process %+v", process)
			}
		}

		client := Start(t, Process{Name: "client"})
		client.Connect(netip.AddrPortFrom(loopback4, listener.Local.Port()), 8)
		var accepted []Socket
		for _, w := range workers {
			accepted = append(accepted, w.Accept(listener, 1)...)
		}
		held := holders(t)
		for i, w := range workers {
			if got := held[accepted[i].Inode]; !slices.Equal(got, []int{w.PID}) {
				t.Errorf("the connection of %d is held by %v", w.PID, got)
			}
		}
		master.Stop()
		waitForEnd(t, pids)
	})
}

// holders returns the processes that hold each socket, by inode: one entry for each descriptor.
func holders(t *testing.T) map[uint64][]int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	pids := make(map[uint64][]int)
	for _, link := range links {
		target, _ := os.Readlink(link) // the descriptor may be closed
		var inode uint64
		if _, err := fmt.Sscanf(target, "socket:[%d]", &inode); err != nil {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/", &pid); err != nil {
			t.Fatal(err)
		}
		pids[inode] = append(pids[inode], pid)
	}
	return pids
}

func equalSets(a, b []int) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func waitForEnd(t *testing.T, pids []int) {
	t.Helper()
	for end := deadline(); slices.ContainsFunc(pids, isAlive); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("some of the processes %v have not ended", pids)
		}
	}
}

// isAlive reports whether a process exists and is not a zombie.
func isAlive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestProcessSockets(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
		t.Run(network, func(t *testing.T) {
			Isolate(t, func() {
				server, client := Start(t, Process{Name: "server"}), Start(t, Process{Name: "client"})
				listener := server.Listen(network, netip.AddrPort{}, 100)
				connected := client.Connect(netip.AddrPortFrom(networks[network].loopback, listener.Local.Port()), 20)
				accepted := server.Accept(listener, 20)
				client.Send(connected[0], 300)
				first := slices.IndexFunc(accepted, func(s Socket) bool { return s.Remote == connected[0].Local })
				server.Receive(accepted[first], 100)
				accepted[first].RecvQ = 200
				load := Load{tb: t, Sockets: slices.Concat([]Socket{listener}, connected, accepted)}
				load.settle()
				checkRows(t, SS(t, "-A", "tcp,udp"), &load)

				client.Close(connected[1:]...)
				server.Close(listener)
				load.Sockets = []Socket{connected[0]}
				for i, s := range accepted {
					if i != first {
						s.State, s.RecvQ = "CLOSE_WAIT", 1
					}
					load.Sockets = append(load.Sockets, s)
				}
				load.settle()
				if rows := SS(t, "-lt"); len(rows) != 0 {
					t.Errorf("ss shows the closed listener: %+v", rows)
				}
			})
		})
	}
}

func TestConnectFrom(t *testing.T) {
	Isolate(t, func() {
		p := Start(t, Process{Name: "both"})
		listener := p.Listen("tcp4", netip.AddrPort{}, 1000)
		to := netip.AddrPortFrom(loopback4, listener.Local.Port())
		for _, from := range []string{"127.0.7.1", "127.0.7.2"} {
			for _, s := range p.ConnectFrom(netip.MustParseAddr(from), to, 300) {
				if s.Local.Addr().String() != from || s.Remote != to {
					t.Errorf("from %s: %+v", from, s)
				}
			}
		}
		p.Accept(listener, 600)
	})
}

// Two processes listen at one port, from which a third dials; another listener has the port on one device.
func TestSocketOptions(t *testing.T) {
	Isolate(t, func() {
		target := Start(t, Process{Name: "target"}).Listen("tcp4", netip.AddrPortFrom(loopback4, 0), 1)
		shared := SocketOptions{ReusePort: true}
		first := Start(t, Process{Name: "first"}).With(shared).Listen("tcp4", netip.AddrPortFrom(loopback4, 0), 1)
		second := Start(t, Process{Name: "second"}).With(shared).Listen("tcp4", first.Local, 1)
		if first.Local != second.Local {
			t.Errorf("the listeners are at %v and %v", first.Local, second.Local)
		}
		dialed := Start(t, Process{Name: "third"}).With(shared).Dial(first.Local, target.Local)
		if dialed.Local != first.Local || dialed.Remote != target.Local {
			t.Errorf("dialed %+v, want from %v to %v", dialed, first.Local, target.Local)
		}

		onLo := Start(t, Process{Name: "fourth"}).With(SocketOptions{Device: "lo"}).Listen("tcp6", netip.AddrPort{}, 1)
		devices := map[uint64]string{}
		for _, row := range SS(t, "-t", "-l") {
			devices[row.Inode] = row.Interface
		}
		if devices[onLo.Inode] != "lo" || devices[first.Inode] != "" {
			t.Errorf("ss shows the devices %v of the listeners %d and %d", devices, onLo.Inode, first.Inode)
		}
	})
}

func TestProcessUDP(t *testing.T) {
	Isolate(t, func() {
		p := Start(t, Process{Name: "udp"})
		server := p.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})
		client := p.UDP("udp4", netip.AddrPort{}, netip.AddrPortFrom(loopback4, server.Local.Port()))
		p.Send(client, 10)
		p.Receive(server, 10)
		load := Load{tb: t, Sockets: []Socket{server, client}}
		load.settle()
	})
}

func TestProcessNetns(t *testing.T) {
	Isolate(t, func() {
		p := Start(t, Process{Name: "container", Netns: true})
		p.Listen("tcp6", netip.AddrPort{}, 1)
		worker := p.Fork(1)[0]
		there := netns(t, strconv.Itoa(p.PID))
		if here := netns(t, "self"); here == there {
			t.Errorf("the process is in the namespace of the test, %s", here)
		}
		if got := netns(t, strconv.Itoa(worker.PID)); got != there {
			t.Errorf("the worker is in %s, want %s", got, there)
		}
		if rows := SS(t, "-t"); len(rows) != 0 {
			t.Errorf("ss shows in the namespace of the test %+v", rows)
		}
		if text := readProc(t, p.PID, "net/tcp6"); strings.Count(text, "\n") != 2 {
			t.Errorf("the namespace has the sockets\n%s", text)
		}
	})
}

func netns(t *testing.T, pid string) string {
	t.Helper()
	link, err := os.Readlink("/proc/" + pid + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestProcessEndsWithTest(t *testing.T) {
	Isolate(t, func() {
		var pids []int
		t.Run("", func(t *testing.T) {
			p := Start(t, Process{Name: "short-lived"})
			pids = append(pids, p.PID, p.Fork(1)[0].PID)
		})
		waitForEnd(t, pids)
	})
}

// A descriptor is passed from a younger to an older process.
func TestPass(t *testing.T) {
	Isolate(t, func() {
		older, younger := Start(t, Process{Name: "older"}), Start(t, Process{Name: "younger"})
		listener := younger.Listen("tcp4", netip.AddrPort{}, 8)
		younger.Pass(listener, older)
		if got := holders(t)[listener.Inode]; !equalSets(got, []int{older.PID, younger.PID}) {
			t.Errorf("the listener is held by %v", got)
		}
		younger.Dup(listener)
		if got := holders(t)[listener.Inode]; !equalSets(got, []int{older.PID, younger.PID, younger.PID}) {
			t.Errorf("with a duplicate, the listener is held by %v", got)
		}
		older.Close(listener)
		younger.Close(listener)
		if got := holders(t)[listener.Inode]; !equalSets(got, []int{younger.PID}) {
			t.Errorf("the listener is held by %v, want the duplicate of %d", got, younger.PID)
		}
		younger.Pass(younger.Listen("tcp4", netip.AddrPort{}, 8), older) // the first Pass closed its inbox
		if rows := SS(t, "-x"); len(rows) != 0 {
			t.Errorf("unix sockets are left: %+v", rows)
		}
	})
}

func TestPutInFlight(t *testing.T) {
	Isolate(t, func() {
		p := Start(t, Process{Name: "sender"})
		listener := p.Listen("tcp4", netip.AddrPort{}, 8)
		p.PutInFlight(listener)
		p.Close(listener)
		if got := holders(t)[listener.Inode]; len(got) != 0 {
			t.Errorf("the listener is held by %v", got)
		}
		if rows := SS(t, "-lt"); len(rows) != 1 || rows[0].Inode != listener.Inode {
			t.Errorf("ss shows %+v", rows)
		}
	})
}

func TestRename(t *testing.T) {
	Isolate(t, func() {
		p := Start(t, Process{Name: "old"})
		worker := p.Fork(1)[0]
		worker.Rename("a\xff\n")
		p.Rename("new")
		for pid, want := range map[int]string{p.PID: "new\n", worker.PID: "a\xff\n\n"} {
			if comm := readProc(t, pid, "comm"); comm != want {
				t.Errorf("the name is %q, want %q", comm, want)
			}
		}
	})
}

func TestEndMainThread(t *testing.T) {
	p := Start(t, Process{Name: "headless"})
	before := p.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})
	p.EndMainThread()
	after := p.UDP("udp4", netip.AddrPort{}, netip.AddrPort{}) // the process still serves requests
	p.Close(before, after)
	if isAlive(p.PID) {
		t.Errorf("the main thread is\n%s", readProc(t, p.PID, "stat"))
	}
	p.Stop()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", p.PID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the process still exists: %v", err)
	}
}

func TestIsolatePIDs(t *testing.T) {
	IsolatePIDs(t, func() {
		if pid := os.Getpid(); pid != 1 {
			t.Errorf("this is process %d", pid)
		}
		if cmdline := readProc(t, 1, "cmdline"); !strings.HasPrefix(cmdline, os.Args[0]+"\x00") {
			t.Errorf("the first process in /proc is %q", cmdline)
		}
		p := Start(t, Process{Name: "second"})
		listener := p.Listen("tcp4", netip.AddrPort{}, 1)
		if got := holders(t)[listener.Inode]; !slices.Equal(got, []int{p.PID}) {
			t.Errorf("the listener is held by %v", got)
		}
		if rows := SS(t, "-t"); len(rows) != 1 {
			t.Errorf("ss shows %+v", rows)
		}
	})
}

func TestConnectedPairs(t *testing.T) {
	Isolate(t, func() {
		const pairs, connections = 2, 4500
		servers, clients := ConnectedPairs(t, pairs, connections)
		if len(servers) != pairs || len(clients) != pairs {
			t.Errorf("%d servers and %d clients", len(servers), len(clients))
		}
		established := 0
		sockets, err := readProcNet("tcp")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sockets {
			if s.State == "ESTABLISHED" && s.Inode != 0 {
				established++
			}
		}
		if established != 2*pairs*connections {
			t.Errorf("%d sockets are established, want %d", established, 2*pairs*connections)
		}
	})
}

func TestCgroup(t *testing.T) {
	Isolate(t, func() {
		var dir, path string
		t.Run("", func(t *testing.T) {
			dir, path = Cgroup(t, "system.slice/nginx.service")
			if !strings.HasSuffix(path, "/system.slice/nginx.service") {
				t.Errorf("the path is %q", path)
			}
			p := Start(t, Process{Name: "nginx", Cgroup: dir})
			p.Listen("tcp4", netip.AddrPort{}, 1)
			worker := p.Fork(1)[0]
			worker.Listen("tcp4", netip.AddrPort{}, 1)
			for _, pid := range []int{p.PID, worker.PID} {
				if text := readProc(t, pid, "cgroup"); !strings.Contains(text, "0::"+path+"\n") {
					t.Errorf("process %d is in the cgroups\n%s", pid, text)
				}
			}
			rows := SS(t, "-lt")
			if len(rows) != 2 || rows[0].Cgroup != path || rows[1].Cgroup != path {
				t.Errorf("ss shows %+v", rows)
			}
		})
		for mount := strings.TrimSuffix(dir, path); dir != mount; dir = filepath.Dir(dir) {
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s still exists: %v", dir, err)
			}
		}
	})
}
