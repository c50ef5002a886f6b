package testnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Process configures [Start].
type Process struct {
	// Name is the name of the process (/proc/<pid>/comm, cut to 15 bytes). It may have any bytes but 0.
	Name string
	// Args are the arguments after the path of the program.
	Args []string
	// UID and GID are the user and group of the process. If both are 0, they are those of the test.
	UID, GID uint32
	// Netns starts the process in a new network namespace, in which lo is up.
	Netns bool
	// In is the file of the network namespace to start the process in: from [Netns], or /proc/<pid>/ns/net.
	In string
	// Proc, if not empty, starts the process in a new PID namespace, and is the directory to mount the proc file system of that
	// namespace on. It requires IsolateMounts or IsolatePIDs.
	Proc string
	// Cgroup is the directory of the cgroup to start the process in: see the function Cgroup.
	Cgroup string
}

// A Proc is a running process that opens and holds sockets on request. If a method fails, it fails the test. The methods of a
// process and of its forks must not be called concurrently.
type Proc struct {
	// PID is the process ID.
	PID int

	tb       testing.TB
	stop     func()
	requests *json.Encoder
	replies  *json.Decoder
	replyEnd *os.File
	worker   int // the number of the fork to forward requests to, from 1; 0: the process itself
	netns    string
	options  SocketOptions
}

// Start starts a process, which ends with the test or the test process. Its program is the test binary under another name, so
// the TestMain of the package must call [Main].
func Start(tb testing.TB, p Process) *Proc {
	tb.Helper()
	if !mainCalled {
		tb.Fatal("Start requires func TestMain(m *testing.M) { testnet.Main(m) }")
	}
	requestRead, requestWrite := pipe(tb)
	replyRead, replyWrite := pipe(tb)

	program := link(tb, p.Name)
	cmd := exec.Command(program, p.Args...)
	cmd.Dir = filepath.Dir(program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = requestRead, replyWrite, tb.Output()
	cmd.Env = append(os.Environ(), helperEnv+"="+p.Name, "GOCOVERDIR="+coverDir(tb))
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if p.UID != 0 || p.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.UID, Gid: p.GID}
	}
	if p.Netns {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
		cmd.Env = append(cmd.Env, helperNetnsEnv+"=1")
	}
	if p.Proc != "" {
		if !netnsDirIsOwn {
			tb.Fatal("mounting a proc file system requires IsolateMounts or IsolatePIDs")
		}
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
		cmd.Env = append(cmd.Env, helperProcEnv+"="+p.Proc)
		tb.Cleanup(func() {
			if err := unix.Unmount(p.Proc, unix.MNT_DETACH); err != nil {
				tb.Errorf("unmounting %s: %v", p.Proc, err)
			}
		})
	}
	if p.Cgroup != "" {
		dir, err := os.Open(p.Cgroup)
		if err != nil {
			tb.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	start := cmd.Start
	if p.In != "" {
		start = func() error { return inNetns(p.In, cmd.Start) }
	}
	err := start()
	_, _ = requestRead.Close(), replyWrite.Close()
	if errors.Is(err, unix.EPERM) {
		SkipOrFail(tb, fmt.Sprintf("another user or network namespace requires CAP_SETUID or CAP_SYS_ADMIN: %v", err))
	} else if err != nil {
		tb.Fatalf("starting %q: %v", p.Name, err)
	}
	stop := func() {
		_ = requestWrite.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	tb.Cleanup(stop)
	proc := &Proc{
		PID: cmd.Process.Pid, tb: tb, stop: stop,
		requests: json.NewEncoder(requestWrite), replies: json.NewDecoder(replyRead), replyEnd: replyRead,
	}
	proc.do(request{Op: opHello}) // returns when the process has its name
	return proc
}

// pipe creates a pipe that is closed when the test ends.
func pipe(tb testing.TB) (r, w *os.File) {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// Program returns the path of a copy of the test binary with another name, which every user may run until the test ends.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	return link(tb, name)
}

// link creates a hard link to the test binary, or a copy, so that /proc/<pid>/comm, exe and cmdline all have the name.
func link(tb testing.TB, name string) string {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	// The parent of a TempDir is closed to other users.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		tb.Fatal(err)
	}
	program := filepath.Join(dir, fileName(name))
	if err := os.Link(exe, program); err == nil {
		return program
	}
	in, err := os.Open(exe)
	if err != nil {
		tb.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		tb.Fatal(err)
	}
	return program
}

// fileName converts a process name to a file name.
func fileName(name string) string {
	switch name {
	case "", ".", "..":
		return "_"
	}
	return strings.ReplaceAll(name, "/", "_")
}

// coverDir returns a directory for the coverage data of a process: without one, a test binary with coverage prints a warning.
func coverDir(tb testing.TB) string {
	tb.Helper()
	if dir := flagValue("test.gocoverdir"); dir != "" {
		return dir
	}
	return tb.TempDir()
}

// In returns a handle of the same process that opens its sockets in the network namespace of a file.
func (p *Proc) In(file string) *Proc {
	in := *p
	in.netns = file
	return &in
}

// SocketOptions are options of sockets: see [Proc.With].
type SocketOptions struct {
	// ReusePort sets SO_REUSEPORT: sockets of the same user may have the same local address and port.
	ReusePort bool
	// Device is the network device to bind to: SO_BINDTODEVICE.
	Device string
}

// With returns a handle of the same process that opens its TCP sockets with options.
func (p *Proc) With(o SocketOptions) *Proc {
	with := *p
	with.options = o
	return &with
}

// Netns returns the file of the network namespace that the process is in.
func (p *Proc) Netns() string { return fmt.Sprintf("/proc/%d/ns/net", p.PID) }

// Listen creates a TCP listener. The network is tcp4, tcp6 or tcp4in6. at is the local address: with port 0 the kernel chooses a
// port, and the zero AddrPort means any address and port. The kernel limits backlog to net.core.somaxconn (4096).
func (p *Proc) Listen(network string, at netip.AddrPort, backlog int) Socket {
	p.tb.Helper()
	return p.do(request{Op: opListen, Network: network, Local: at, N: backlog})[0]
}

// Connect opens n connections to an address, and returns when all are established.
//
// One source address has 28,232 ports for connections to one address and port (net.ipv4.ip_local_port_range). For more, connect
// to several listeners, or from several source addresses: see [Proc.ConnectFrom].
func (p *Proc) Connect(to netip.AddrPort, n int) []Socket {
	p.tb.Helper()
	return p.do(request{Op: opConnect, Remote: to, N: n})
}

// ConnectFrom is Connect with a source address, which may be any of 127.0.0.0/8.
func (p *Proc) ConnectFrom(from netip.Addr, to netip.AddrPort, n int) []Socket {
	p.tb.Helper()
	return p.do(request{Op: opConnect, Local: netip.AddrPortFrom(from, 0), Remote: to, N: n})
}

// Dial opens a connection from an address and port: bind(2), then connect(2).
func (p *Proc) Dial(from, to netip.AddrPort) Socket {
	p.tb.Helper()
	return p.do(request{Op: opConnect, Local: from, Remote: to, N: 1})[0]
}

// Accept waits for n connections of a listener, and accepts them.
func (p *Proc) Accept(listener Socket, n int) []Socket {
	p.tb.Helper()
	return p.do(request{Op: opAccept, Inodes: []uint64{listener.Inode}, N: n})
}

// UDP creates a UDP socket, bound to an address as in Listen, and connected to remote if that is valid. The network is udp4, udp6
// or udp4in6.
func (p *Proc) UDP(network string, at, remote netip.AddrPort) Socket {
	p.tb.Helper()
	return p.do(request{Op: opUDP, Network: network, Local: at, Remote: remote})[0]
}

// Send writes n bytes to a connected socket.
func (p *Proc) Send(s Socket, n int) {
	p.tb.Helper()
	p.do(request{Op: opSend, Inodes: []uint64{s.Inode}, N: n})
}

// Receive waits for n bytes of a socket, and reads them.
func (p *Proc) Receive(s Socket, n int) {
	p.tb.Helper()
	p.do(request{Op: opReceive, Inodes: []uint64{s.Inode}, N: n})
}

// Close closes sockets that the process holds.
func (p *Proc) Close(sockets ...Socket) {
	p.tb.Helper()
	r := request{Op: opClose}
	for _, s := range sockets {
		r.Inodes = append(r.Inodes, s.Inode)
	}
	p.do(r)
}

// Fork starts n children of the process, with its program, name and command line. They inherit its listeners.
func (p *Proc) Fork(n int) []*Proc {
	p.tb.Helper()
	if p.worker != 0 {
		p.tb.Fatal("a fork cannot fork")
	}
	var forks []*Proc
	for range n {
		reply := p.exchange(request{Op: opFork})
		fork := *p
		fork.PID, fork.worker = reply.PID, reply.Worker
		forks = append(forks, &fork)
	}
	return forks
}

// Stop ends the process and its forks before the test ends.
func (p *Proc) Stop() {
	p.tb.Helper()
	if p.worker != 0 {
		p.tb.Fatal("a fork cannot be stopped alone: stop its parent")
	}
	p.stop()
}

// do sends a request, and returns the sockets of the reply.
func (p *Proc) do(r request) []Socket {
	p.tb.Helper()
	return p.exchange(r).Sockets
}

func (p *Proc) exchange(r request) reply {
	p.tb.Helper()
	r.Worker, r.Netns, r.Options = p.worker, p.netns, p.options
	var response reply
	err := p.requests.Encode(r)
	if err == nil {
		err = p.replyEnd.SetReadDeadline(time.Now().Add(requestLimit + waitLimit))
	}
	if err == nil {
		err = p.replies.Decode(&response)
	}
	if err == nil && response.Error != "" {
		err = errors.New(response.Error)
	}
	if err != nil {
		p.tb.Fatalf("process %d: %s: %v", p.PID, r.Op, err)
	}
	return response
}
