package testnet

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNetns(t *testing.T) {
	IsolateMounts(t, func() {
		if names := netnsNames(t); len(names) > 0 {
			t.Fatalf("there are network namespaces before the test: %v", names)
		}
		blue := Netns(t, "blue")
		inside := Start(t, Process{Name: "inside", In: blue})
		outside := Start(t, Process{Name: "outside"})
		alone := Start(t, Process{Name: "alone", Netns: true})
		if readlink(t, inside.Netns()) == readlink(t, outside.Netns()) {
			t.Fatal("the namespace is not new")
		}
		if got, want := readlink(t, outside.Netns()), readlink(t, "/proc/self/ns/net"); got != want {
			t.Fatalf("the test is in %s, its process in %s", want, got)
		}

		at := netip.MustParseAddrPort("127.0.0.1:5000")
		in := []Socket{inside.Listen("tcp4", at, 1), outside.In(blue).Listen("tcp6", netip.MustParseAddrPort("[::1]:5000"), 1)}
		out := outside.Listen("tcp4", at, 1)
		inside.Connect(at, 1)
		if got := readlink(t, outside.Netns()); got != readlink(t, "/proc/self/ns/net") {
			t.Fatalf("the process stayed in %s", got)
		}
		requireInodes(t, SS(t, "-tl"), out)
		requireInodes(t, SS(t, "-tl", "-N", "blue"), in...)
		requireInodes(t, SSIn(t, blue, "-tl"), in...)
		requireInodes(t, SSIn(t, alone.Netns(), "-tl"))

		NameNetns(t, "alone", alone.Netns())
		if got := fmt.Sprint(netnsNames(t)); got != "[alone blue]" {
			t.Fatalf("ip netns lists %s", got)
		}
		UnnameNetns(t, "blue")
		if got := fmt.Sprint(netnsNames(t)); got != "[alone]" {
			t.Fatalf("ip netns lists %s", got)
		}
	})
	if _, err := os.Stat(filepath.Join(NetnsDir, "blue")); err == nil && os.Getenv(insideEnv) == "" {
		t.Error("the name outlived the test")
	}
}

func requireInodes(t *testing.T, rows []Row, want ...Socket) {
	t.Helper()
	inodes, wanted := map[uint64]bool{}, map[uint64]bool{}
	for _, row := range rows {
		inodes[row.Inode] = true
	}
	for _, socket := range want {
		wanted[socket.Inode] = true
	}
	if fmt.Sprint(inodes) != fmt.Sprint(wanted) {
		t.Fatalf("ss shows sockets %v, want %v", inodes, wanted)
	}
}

// netnsNames returns the names that ip-netns(8) lists.
func netnsNames(t *testing.T) (names []string) {
	t.Helper()
	Require(t, "ip")
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		names = append(names, strings.Fields(line)[0])
	}
	return names
}

func readlink(t *testing.T, path string) string {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func TestProcessWithProc(t *testing.T) {
	IsolatePIDs(t, func() {
		if os.Getpid() != 1 {
			t.Fatalf("the test is process %d", os.Getpid())
		}
		if names := netnsNames(t); len(names) > 0 {
			t.Fatalf("there are network namespaces before the test: %v", names)
		}
		proc := t.TempDir()
		p := Start(t, Process{Name: "first", Netns: true, Proc: proc})
		comm, err := os.ReadFile(filepath.Join(proc, "1", "comm"))
		if err != nil || string(comm) != "first\n" {
			t.Errorf("process 1 in %s is %q: %v", proc, comm, err)
		}
		if got, want := readlink(t, filepath.Join(proc, "1", "ns", "net")), readlink(t, p.Netns()); got != want {
			t.Errorf("process 1 in %s has the network namespace %s, want %s", proc, got, want)
		}
		for _, dir := range []string{"/proc", proc} {
			pids, err := filepath.Glob(dir + "/[0-9]*")
			if err != nil || len(pids) > 3 {
				t.Errorf("%s shows other processes: %v, %v", dir, pids, err)
			}
		}
		p.Stop()
		for end := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(filepath.Join(proc, "1")); err != nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the PID namespace outlived its process")
			}
		}
	})
}
