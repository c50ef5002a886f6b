package testnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The environment variables with which [Start] configures a process.
const (
	helperEnv          = "TESTNET_HELPER" // the name of the process
	helperNetnsEnv     = "TESTNET_HELPER_NETNS"
	helperProcEnv      = "TESTNET_HELPER_PROC"      // the mount point for the proc file system of a new PID namespace
	helperListenersEnv = "TESTNET_HELPER_LISTENERS" // the number of inherited listeners, from descriptor 3 on
)

// requestLimit is the time limit for one request.
const requestLimit = 30 * time.Second

// A helper reads requests from its standard input and writes one reply to each to its standard output, as lines of JSON.
type request struct {
	Worker           int    // forward the request to this worker
	Netns            string // open the sockets in this network namespace
	Options          SocketOptions
	Op               op
	Network          string
	Local, Remote    netip.AddrPort
	N                int
	Inodes           []uint64
	Churn            Churn
	ShortConnections ShortConnections
	Attempts         Attempts
	GiveUp           GiveUp
	Relay            Relay
	Name             []byte // not a string, in which encoding/json would replace invalid UTF-8
}

type reply struct {
	Error            string
	Sockets          []Socket
	PID              int
	Worker           int
	ChurnStats       ChurnStats
	ShortConnections shortConnectionsResult
	Attempted        []Attempted
	AttemptTotals    AttemptTotals
}

type op string

const (
	opHello   op = "hello"
	opListen  op = "listen"
	opConnect op = "connect"
	opAccept  op = "accept"
	opUDP     op = "udp"
	opSend    op = "send"
	opReceive op = "receive"
	opClose   op = "close"
	opFork    op = "fork"
	opBegin   op = "begin attempts"
	opFinish  op = "finish attempts"
	opGiveUp  op = "give up attempts"
	opReset   op = "reset"

	opAttemptAtRate op = "attempt at a rate"
	opAttemptTotals op = "count attempts"

	opRelay op = "relay"

	opChurn                  op = "churn"
	opChurned                op = "churned"
	opEndChurn               op = "end churn"
	opServe                  op = "serve"
	opShortConnections       op = "open short connections"
	opShortConnectionsResult op = "count short connections"
	opDup                    op = "dup"
	opInbox                  op = "open inbox"
	opPass                   op = "pass"
	opTake                   op = "take"
	opPutInFlight            op = "put in flight"
	opRename                 op = "rename"
	opSetUser                op = "set user"
	opEndMain                op = "end main thread"
)

var mainCalled bool

// Main runs the tests of a package or, in a process that [Start] started, serves the requests of [Proc]:
//
//	func TestMain(m *testing.M) { testnet.Main(m) }
func Main(m *testing.M) {
	if isHelper() {
		h := &helper{
			fds: make(map[uint64]int), attempts: make(map[uint64]*attempt), attemptsAtRate: make(map[netip.AddrPort]*attemptsAtRate),
			inbox: -1, endMain: make(chan struct{}),
		}
		go func() {
			if err := h.run(); err != nil {
				fmt.Fprintln(os.Stderr, "testnet:", err)
				os.Exit(1)
			}
			os.Exit(0)
		}()
		<-h.endMain
		exitThread()
	}
	mainCalled = true
	os.Exit(m.Run())
}

func isHelper() bool {
	_, ok := os.LookupEnv(helperEnv)
	return ok
}

// A helper holds sockets until its standard input is closed. The sockets are plain file descriptors, so that Go's poller does not
// register them.
type helper struct {
	fds              map[uint64]int // by inode
	listeners        []int
	attempts         map[uint64]*attempt // by inode: those that were begun, and not finished or given up
	workers          []*worker
	churn            *churn // nil if none is running
	shortConnections shortConnections
	attemptsAtRate   map[netip.AddrPort]*attemptsAtRate
	relay            relay
	inbox            int // see Proc.Pass
	endMain          chan struct{}
}

func (h *helper) run() error {
	if err := setName(os.Getenv(helperEnv)); err != nil {
		return err
	}
	if os.Getenv(helperNetnsEnv) != "" {
		if err := setUp("lo"); err != nil {
			return err
		}
		if err := os.Unsetenv(helperNetnsEnv); err != nil {
			return err
		}
	}
	if dir := os.Getenv(helperProcEnv); dir != "" {
		if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
			return fmt.Errorf("mounting a proc file system on %s: %w", dir, err)
		}
		if err := os.Unsetenv(helperProcEnv); err != nil {
			return err
		}
	}
	if err := h.inherit(); err != nil {
		return err
	}
	requests, replies := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var r request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		response, err := h.do(r)
		if err != nil {
			response.Error = err.Error()
		}
		if err := replies.Encode(response); err != nil {
			return fmt.Errorf("writing a reply: %w", err)
		}
	}
}

// setName sets the name of this process. If the name is a valid file name, exec has set it already.
func setName(name string) error {
	if fileName(name) == name {
		return nil
	}
	return rename([]byte(name))
}

func rename(name []byte) error {
	if err := os.WriteFile("/proc/self/comm", name, 0); err != nil {
		return fmt.Errorf("setting the process name %q: %w", name, err)
	}
	return nil
}

// inherit registers the listeners of the parent process.
func (h *helper) inherit() error {
	count, _ := strconv.Atoi(os.Getenv(helperListenersEnv))
	for fd := 3; fd < 3+count; fd++ {
		unix.CloseOnExec(fd)
		if _, err := h.register(fd, nil); err != nil {
			return err
		}
		h.listeners = append(h.listeners, fd)
	}
	return nil
}

func (h *helper) do(r request) (reply, error) {
	if r.Worker > 0 {
		return h.forward(r)
	}
	if netns := r.Netns; netns != "" {
		r.Netns = ""
		var response reply
		err := inNetns(netns, func() (err error) {
			response, err = h.do(r)
			return err
		})
		return response, err
	}
	end := time.Now().Add(requestLimit)
	switch r.Op {
	case opHello:
		return reply{}, nil
	case opListen:
		return one(h.listen(r))
	case opConnect:
		return many(h.connect(r, end))
	case opAccept:
		return many(h.accept(r, end))
	case opUDP:
		return one(h.udp(r))
	case opSend:
		return reply{}, h.each(r, func(fd int) error { return write(fd, r.N) })
	case opReceive:
		return reply{}, h.each(r, func(fd int) error { return read(fd, r.N, end) })
	case opClose:
		return reply{}, h.each(r, h.close)
	case opBegin:
		return many(h.begin(r, end))
	case opFinish:
		return ended(h.finish(r, end))
	case opGiveUp:
		return ended(h.giveUp(r, end))
	case opReset:
		return reply{}, h.each(r, h.reset)
	case opAttemptAtRate:
		return reply{}, h.attemptAtRate(r)
	case opAttemptTotals:
		totals, err := h.attemptTotals(r.Remote)
		return reply{AttemptTotals: totals}, err
	case opRelay:
		return reply{}, h.relay.set(r.Relay)
	case opFork:
		return h.fork()
	case opChurn, opChurned, opEndChurn:
		return h.doChurn(r)
	case opServe, opShortConnections, opShortConnectionsResult:
		return h.doShortConnections(r)
	case opDup:
		return reply{}, h.each(r, dup)
	case opInbox:
		return reply{}, h.openInbox()
	case opPass:
		return reply{}, h.each(r, func(fd int) error { return pass(fd, r.N) })
	case opTake:
		return one(h.take(end))
	case opPutInFlight:
		return reply{}, h.each(r, putInFlight)
	case opRename:
		return reply{}, rename(r.Name)
	case opSetUser:
		return reply{}, syscall.Setuid(r.N)
	case opEndMain:
		close(h.endMain)
		return reply{}, waitForMainThread(end)
	}
	return reply{}, fmt.Errorf("unknown request %q", r.Op)
}

// A worker is a helper that another helper has forked.
type worker struct {
	requests *json.Encoder
	replies  *json.Decoder
}

// fork starts a worker. It does not use os/exec, because an os.File would register the listener with Go's poller.
func (h *helper) fork() (reply, error) {
	stdin, requests, err := os.Pipe()
	if err != nil {
		return reply{}, err
	}
	defer stdin.Close()
	replies, stdout, err := os.Pipe()
	if err != nil {
		return reply{}, err
	}
	defer stdout.Close()
	files := []uintptr{stdin.Fd(), stdout.Fd(), os.Stderr.Fd()}
	for _, fd := range h.listeners {
		files = append(files, uintptr(fd))
	}
	env := append(os.Environ(), fmt.Sprintf("%s=%d", helperListenersEnv, len(h.listeners)))
	pid, err := syscall.ForkExec(os.Args[0], os.Args, &syscall.ProcAttr{Env: env, Files: files})
	if err != nil {
		return reply{}, fmt.Errorf("forking: %w", err)
	}
	h.workers = append(h.workers, &worker{json.NewEncoder(requests), json.NewDecoder(replies)})
	number := len(h.workers)
	_, err = h.forward(request{Worker: number, Op: opHello})
	return reply{PID: pid, Worker: number}, err
}

// forward sends a request to a worker, and returns its reply.
func (h *helper) forward(r request) (reply, error) {
	if r.Worker > len(h.workers) {
		return reply{}, fmt.Errorf("no worker %d", r.Worker)
	}
	w := h.workers[r.Worker-1]
	r.Worker = 0
	if err := w.requests.Encode(r); err != nil {
		return reply{}, fmt.Errorf("asking a worker: %w", err)
	}
	var response reply
	if err := w.replies.Decode(&response); err != nil {
		return reply{}, fmt.Errorf("asking a worker: %w", err)
	}
	return response, nil
}
