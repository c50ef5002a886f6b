package e2e

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A process that is root in its own user and network namespace, and unprivileged outside, sends forged sockets, ends of dumps and
// destroyed sockets to every netlink socket of procnetstat in that namespace. The output has none of them, and every count is
// that of ss.
func TestForgedNetlinkMessages(t *testing.T) {
	setUp(t)
	program := execdProgram(t)
	testnet.IsolatePIDs(t, func() {
		const connections, churned, gathers = 4, 5, 10
		serving, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := serving.Listen("tcp4", selfAddress, 16)
		serving.Accept(listener, len(client.Connect(selfAddress, 7)))

		dir := t.TempDir()
		config, output, pipe := filepath.Join(dir, "procnetstat.conf"), filepath.Join(dir, "metrics"), filepath.Join(dir, "pipe")
		if err := errors.Join(os.WriteFile(config, []byte(forgeryConfig), 0o600), unix.Mkfifo(pipe, 0o600)); err != nil {
			t.Fatal(err)
		}
		f := startForger(t, connections, listener.Inode)
		tg := follow(t, output, func() *server {
			const command = `exec "$1" -config "$2" -poll_interval 250ms <> "$3" > "$4"` // opened for reading and writing, so that there is no end of file
			return startServer(t, "sh", "-c", command, "sh", program, config, pipe, output)
		})
		first := tg.gatherAfter(0, lastMeasurement)
		attacked := f.request("count")
		f.request("churn " + strconv.Itoa(churned))
		at := first
		for range gathers {
			at = tg.gatherAfter(at, lastMeasurement)
		}
		after := f.request("count")
		t.Logf("sent by the forger: %+v", after)
		if after.Refused != after.Unicast {
			t.Errorf("the kernel delivered forged unicast messages: %+v", after)
		}
		if after.Unicast-attacked.Unicast < 1000 || after.Multicast-attacked.Multicast < 1000 || after.Ports < 2 {
			t.Errorf("the forger sent too few messages: %+v at first, %+v at the end", attacked, after)
		}

		want := gather{}
		for netns, file := range map[string]string{"self": "/proc/self/ns/net", inodeOf(t, f.netns()): f.netns()} {
			for _, row := range testnet.SSIn(t, file, "-t", "-p") {
				if len(row.Processes) != 1 {
					t.Fatalf("ss does not show one process for %v in %s", row, netns)
				}
				process := map[string]string{"netns": netns, "process_name": row.Processes[0].Name}
				want.of(seriesName("procnetstat_process", process))["tcp_"+strings.ToLower(row.State)]++
				want.of(seriesName("procnetstat", map[string]string{"netns": netns}))["tcp_"+strings.ToLower(row.State)]++
			}
		}
		// The owner of a connection that ended between two gathers is unknown.
		unseen := seriesName("procnetstat_process", map[string]string{"netns": inodeOf(t, f.netns()), "process_name": "unattributed"})
		closed := int64(0) // a counter begins with 0
		for _, time := range slices.Sorted(maps.Keys(tg.seen)) {
			g := tg.seen[time]
			if time < first {
				continue
			}
			if of, found := g[unseen]; found && of["tcp_established"] == 0 && of["tcp_closed"] == closed {
				delete(g, unseen)
				closed = churned
			}
			requireSeries(t, g, "procnetstat_process", want)
			requireSeries(t, g, "procnetstat", want)
		}
		of := tg.seen[at][seriesName("procnetstat", map[string]string{"netns": inodeOf(t, f.netns())})]
		if of["tcp_opened"] != 2*churned || of["tcp_closed"] != 2*churned {
			t.Errorf("the forger opened and closed %d connections, got %v", churned, of)
		}
		text, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(text), forgedPeer.String()); i >= 0 {
			t.Errorf("the output has the forged peer: %s", text[max(0, i-200):min(len(text), i+200)])
		}
		if log := tg.log(); strings.Contains(log, "E! ") {
			t.Errorf("procnetstat logged errors: %s", log)
		}
	})
}

const forgeryConfig = `
[[inputs.procnetstat]]
  namespaces = ["all"]
  measurements = ["host", "process", "listener", "remote", "connection", "gather"]
  process_tags = ["process_name"]
  closed_connections = "on"
  source = "netlink"
`

// forgerEnv makes the test binary run as a forger. Its value is the number of connections that it opens to itself, and the inode
// that the forged sockets have.
const forgerEnv = "E2E_FORGER"

// forgedPeer is an address to which no namespace has a connection.
var forgedPeer = netip.MustParseAddr("203.0.113.66")

// forger is a process that sends netlink messages as if they came from the kernel.
type forger struct {
	t       *testing.T
	pid     int
	to      io.Writer
	answers *bufio.Scanner
}

// forgedCounts counts what a forger has sent.
type forgedCounts struct {
	Unicast, Refused int // messages to a single socket
	Multicast        int // messages to a group
	Ports            int // netlink sockets that messages were sent to
}

// startForger starts a forger as user 65534, who is root in new user and network namespaces.
func startForger(t *testing.T, connections int, inode uint64) *forger {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", forgerEnv, connections, inode))
	cmd.Stderr = os.Stderr
	const nobody = 65534
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: ids, GidMappings: ids,
		Credential: &syscall.Credential{NoSetGroups: true}, Pdeathsig: unix.SIGKILL,
	}
	to, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		testnet.SkipOrFail(t, fmt.Sprintf("no user namespaces: %v", err))
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	f := &forger{t: t, pid: cmd.Process.Pid, to: to, answers: bufio.NewScanner(from)}
	f.request("count") // returns when the forger is ready
	return f
}

func (f *forger) netns() string { return fmt.Sprintf("/proc/%d/ns/net", f.pid) }

// request sends a command to the forger, and returns its counts.
func (f *forger) request(what string) (so forgedCounts) {
	f.t.Helper()
	if _, err := fmt.Fprintln(f.to, what); err != nil {
		f.t.Fatal(err)
	}
	if !f.answers.Scan() {
		f.t.Fatalf("the forger has ended: %v", f.answers.Err())
	}
	if err := json.Unmarshal(f.answers.Bytes(), &so); err != nil {
		f.t.Fatalf("the forger replied %q: %v", f.answers.Text(), err)
	}
	return so
}

// runForger is the main function of a forger.
func runForger(arguments string) error {
	var connections int
	var inode uint32
	if _, err := fmt.Sscan(arguments, &connections, &inode); err != nil {
		return err
	}
	if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp4", selfAddress.String())
	if err != nil {
		return err
	}
	connect := func(n int) (ends []net.Conn, err error) {
		for range n {
			client, err := net.Dial("tcp4", selfAddress.String())
			if err != nil {
				return nil, err
			}
			server, err := listener.Accept()
			if err != nil {
				return nil, err
			}
			ends = append(ends, client, server)
		}
		return ends, nil
	}
	held, err := connect(connections)
	if err != nil {
		return err
	}
	defer func() { _ = held[0].Close() }()

	var mu sync.Mutex
	var done forgedCounts
	failed := make(chan error, 1)
	go func() {
		ports := map[uint32]bool{}
		for ; ; time.Sleep(time.Millisecond) {
			more, err := sendForged(ports, inode)
			if err != nil {
				failed <- err
				return
			}
			mu.Lock()
			done.Unicast, done.Refused = done.Unicast+more.Unicast, done.Refused+more.Refused
			done.Multicast, done.Ports = done.Multicast+more.Multicast, len(ports)
			mu.Unlock()
		}
	}()
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		var n int
		if _, err := fmt.Sscanf(commands.Text(), "churn %d", &n); err == nil {
			ends, err := connect(n)
			if err != nil {
				return err
			}
			for _, end := range ends {
				_ = end.(*net.TCPConn).SetLinger(0)
				_ = end.Close()
			}
		}
		select {
		case err := <-failed:
			return err
		default:
		}
		mu.Lock()
		text, err := json.Marshal(done)
		mu.Unlock()
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return nil
}

// sendForged sends forged messages to each sock_diag socket of the network namespace, and to the multicast groups.
func sendForged(ports map[uint32]bool, inode uint32) (sent forgedCounts, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return forgedCounts{}, err
	}
	defer unix.Close(fd)
	table, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return forgedCounts{}, err
	}
	const events = 1<<0 | 1<<2 // SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY
	for group := uint32(1); group <= events; group <<= 2 {
		for cookie := range uint64(8) {
			message := forgedSocket(20, 0, 0, 7, inode, 1<<40+cookie)
			err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: group})
			if err == nil {
				sent.Multicast++
			} else if !errors.Is(err, unix.ESRCH) { // nobody has subscribed
				return sent, err
			}
		}
	}
	for row := range strings.Lines(string(table)) {
		columns := strings.Fields(row)
		const protocol, port = 1, 2
		number, err := strconv.ParseUint(columns[port], 10, 32)
		if err != nil || columns[protocol] != "4" || number == 0 { // NETLINK_SOCK_DIAG; the kernel's own
			continue
		}
		ports[uint32(number)] = true
		for sequence := uint32(0); sequence <= 60; sequence++ {
			for _, message := range [][]byte{
				forgedSocket(18, sequence, uint32(number), 1, inode, 77),    // TCPDIAG_GETSOCK
				forgedSocket(20, sequence, uint32(number), 1, inode, 78),    // SOCK_DIAG_BY_FAMILY
				forgedMessage(3, sequence, uint32(number), make([]byte, 4)), // NLMSG_DONE
			} {
				sent.Unicast++
				err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: uint32(number)})
				if errors.Is(err, unix.ECONNREFUSED) {
					sent.Refused++
				}
			}
		}
	}
	return sent, nil
}

// forgedMessage encodes a netlink message.
func forgedMessage(kind uint16, sequence, port uint32, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = binary.NativeEndian.AppendUint32(b, port)
	return append(b, payload...)
}

// forgedSocket encodes a struct inet_diag_msg (include/uapi/linux/inet_diag.h) of a connection to forgedPeer.
func forgedSocket(kind uint16, sequence, port uint32, state byte, inode uint32, cookie uint64) []byte {
	b := make([]byte, 72)
	b[0], b[1] = 2, state
	binary.BigEndian.PutUint16(b[4:], 40000)
	binary.BigEndian.PutUint16(b[6:], 443)
	copy(b[8:], []byte{127, 0, 0, 1})
	copy(b[24:], forgedPeer.AsSlice())
	binary.NativeEndian.PutUint64(b[44:], cookie)
	binary.NativeEndian.PutUint32(b[68:], inode)
	return forgedMessage(kind, sequence, port, b)
}
