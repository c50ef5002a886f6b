package netstat

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
	"github.com/procnetstat/procnetstat/netstat/internal/netns"
)

// Outcome is how a TCP connection, or an attempt to connect, ended.
type Outcome uint8

// The outcomes. The kernel's error of the socket (sk_err) tells them apart.
const (
	// OutcomeUnknown: it has not ended, or the end is not recorded. See [ScanStats].Initiators.
	OutcomeUnknown Outcome = iota
	// OutcomeClosed: an established connection ended without an error, or this end reset it.
	OutcomeClosed
	// OutcomeReset: the peer reset an established connection (ECONNRESET; EPIPE if the peer had closed it before, tcp_reset in
	// net/ipv4/tcp_input.c).
	OutcomeReset
	// OutcomeTimedOut: the peer of an established connection no longer answered (ETIMEDOUT, or the last error that ICMP reported
	// until then; tcp_write_err, net/ipv4/tcp_timer.c).
	OutcomeTimedOut
	// OutcomeConnectRefused: the peer answered by a reset, or by ICMP that the port is unreachable (ECONNREFUSED).
	OutcomeConnectRefused
	// OutcomeConnectTimedOut: nothing answered (ETIMEDOUT).
	OutcomeConnectTimedOut
	// OutcomeConnectUnreachable: ICMP reported any other error, most often that the host, the network or the protocol is unreachable
	// or prohibited (EHOSTUNREACH, ENETUNREACH, ENOPROTOOPT, EACCES; icmp_err_convert in net/ipv4/icmp.c, icmpv6_err_convert in
	// net/ipv6/icmp.c), or the kernel did, as no neighbour answered. An attempt for which there is no route at all fails before it
	// begins, and is not seen.
	OutcomeConnectUnreachable
	// OutcomeConnectNoPort: no local port was free, or the one that the socket is bound to is in use between the same two
	// endpoints (EADDRNOTAVAIL). Nothing was sent: other reasons for that, such as ENOBUFS, are rare.
	OutcomeConnectNoPort
	// OutcomeConnectAborted: the process gave up: it closed or disconnected the socket, or ended. Or the socket was destroyed
	// (ECONNABORTED, ss -K).
	OutcomeConnectAborted
)

var outcomeNames = [...]string{
	OutcomeUnknown: "unknown", OutcomeClosed: "closed", OutcomeReset: "reset", OutcomeTimedOut: "timed out",
	OutcomeConnectRefused: "connect refused", OutcomeConnectTimedOut: "connect timed out",
	OutcomeConnectUnreachable: "connect unreachable", OutcomeConnectNoPort: "connect without port",
	OutcomeConnectAborted: "connect aborted",
}

// String returns the outcome's name, or Outcome(n) for an invalid value.
func (o Outcome) String() string { return enumName("Outcome", o, outcomeNames[:]) }

// MarshalText returns the outcome's name. It fails for an invalid value.
func (o Outcome) MarshalText() ([]byte, error) { return marshalEnum("Outcome", o, outcomeNames[:]) }

// UnmarshalText sets the outcome by its name. An unknown name is an error.
func (o *Outcome) UnmarshalText(name []byte) error { return unmarshalEnum(o, name, outcomeNames[:]) }

// IsFailedConnect reports whether an attempt to connect failed.
func (o Outcome) IsFailedConnect() bool { return o >= OutcomeConnectRefused }

// outcomeOf returns the outcome of an end; OutcomeUnknown if the error is not the reason for it.
func outcomeOf(e *bpf.End) Outcome {
	err := syscall.Errno(e.Error)
	if !e.Failed {
		switch {
		case err == syscall.ECONNRESET, err == syscall.EPIPE:
			return OutcomeReset
		case err == syscall.ETIMEDOUT, err != 0 && e.Error == e.SoftError:
			return OutcomeTimedOut
		default:
			return OutcomeUnknown // with IP_RECVERR, ICMP sets the error of a connection that goes on
		}
	}
	if e.NoPort { // sk_err can be that of an earlier attempt
		return OutcomeConnectNoPort
	}
	if err == 0 { // what the process was told before it closed the socket
		err = syscall.Errno(e.SoftError)
	}
	switch err {
	case 0:
		return OutcomeConnectAborted
	case syscall.ECONNABORTED:
		return OutcomeConnectAborted
	case syscall.ECONNREFUSED, syscall.ECONNRESET: // the latter after the SYN of the peer: two that connect to each other
		return OutcomeConnectRefused
	case syscall.ETIMEDOUT:
		return OutcomeConnectTimedOut
	default:
		return OutcomeConnectUnreachable
	}
}

// Attempt is an attempt to connect by TCP, as a BPF program recorded it: see [Socket.Attempt].
type Attempt struct {
	Number      uint32        // tells the attempts of a socket apart
	ConnectTime time.Duration // from connect(2) until it was established or failed; 0: still trying
	SynRetrans  uint32        // SYN segments that were sent again until then, at most 255
}

func attemptOf(a *bpf.Attempt) Attempt {
	return Attempt{a.Number, time.Duration(a.ConnectTime) * time.Microsecond, a.SynRetrans}
}

// connectRecords are the records of the BPF program. Lookup is safe for concurrent use.
type connectRecords interface {
	// Lookup returns the last attempt of the socket with the cookie; false if it is unknown.
	Lookup(cookie uint64) (bpf.Connect, bool)
	// Drain calls f with the ends since the last call.
	Drain(f func(*bpf.End))
	// Lost returns the number of ends so far for which there was no room.
	Lost() uint64
	// Wait calls drain whenever many ends wait, until Close.
	Wait(drain func())
	// Close must not be called during or before a Lookup or Drain.
	Close()
}

var _ connectRecords = (*bpf.Connects)(nil)

// connects has the records of the BPF program, and the ends that no scan has taken yet; both empty while that is not loaded. It is
// safe for concurrent use.
type connects struct {
	records atomic.Pointer[connectRecords]
	waiting sync.WaitGroup

	mu       sync.Mutex
	each     func(*bpf.End)         // add, so that Drain needs no new one
	queues   map[uint64][]*endQueue // by the inode number of the network namespace; the first one gets the ends
	overflow uint64                 // ends for which a queue had no room
	missed   uint64                 // ends of attempts that the program has not reported: see countMissed
	excused  uint64                 // of ends that are lost, or forgotten
	forgot   uint64                 // held ends that were forgotten
	reported uint64                 // lost ends that a scan has reported
}

// endQueue queues the ends in a network namespace until a scan takes them. It is used under the lock of its connects.
type endQueue struct {
	closedQueue
	untaken map[uint64]Outcome // those in the queue, by cookie
	// held are the ends that a scan has taken of sockets that the kernel has not destroyed yet, by cookie. The destruction is no second
	// end. The event of it can have been lost, so the oldest are forgotten: these are two generations.
	held [2]map[uint64]Outcome
}

func newEndQueue(budget *closedBudget) *endQueue {
	return &endQueue{closedQueue: closedQueue{budget: budget}, untaken: map[uint64]Outcome{}}
}

// maxHeld bounds the held ends of all namespaces together; 65,536 entries need about 2 MB. Beyond it a failed attempt whose record is
// gone can count as a closed connection once more, and the outcome of a destroyed socket is not known.
const maxHeld = 1 << 16

// hold notes that a scan takes the ends in the queue. It returns the number of ends that it forgets.
func (q *endQueue) hold(limit int) (forgot int) {
	for cookie, outcome := range q.untaken {
		if q.held[0] == nil || len(q.held[0]) >= limit/2 {
			forgot += len(q.held[1])
			q.held = [2]map[uint64]Outcome{{}, q.held[0]}
		}
		q.held[0][cookie] = outcome
	}
	clear(q.untaken)
	return forgot
}

// forget returns the outcome of a socket, and forgets it.
func (q *endQueue) forget(cookie uint64) (outcome Outcome, known bool) {
	for _, ends := range []map[uint64]Outcome{q.held[1], q.held[0], q.untaken} { // the last one counts
		if found, ok := ends[cookie]; ok {
			outcome, known = found, true
			delete(ends, cookie)
		}
	}
	return outcome, known
}

func (c *connects) isOpen() bool { return c.records.Load() != nil }

// Lookup returns the last attempt of the socket with the cookie; false if it is unknown.
func (c *connects) Lookup(cookie uint64) (bpf.Connect, bool) {
	if records := c.records.Load(); records != nil {
		return (*records).Lookup(cookie)
	}
	return bpf.Connect{}, false
}

func (c *connects) open(records connectRecords) {
	c.each = c.add
	c.records.Store(&records)
	c.waiting.Go(func() { records.Wait(c.drain) })
}

func (c *connects) Close() {
	c.mu.Lock()
	records := c.records.Swap(nil)
	c.mu.Unlock()
	if records != nil {
		(*records).Close()
		c.waiting.Wait()
	}
}

// drain queues the ends since the last call.
func (c *connects) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainLocked()
}

func (c *connects) drainLocked() {
	if records := c.records.Load(); records != nil {
		(*records).Drain(c.each)
	}
}

func (c *connects) add(e *bpf.End) {
	queues := c.queues[e.NetNS]
	outcome := outcomeOf(e)
	switch {
	case len(queues) == 0 || outcome == OutcomeUnknown:
	case queues[0].addEnd(e, outcome):
		queues[0].untaken[e.Cookie] = outcome
	default:
		c.overflow++
	}
}

// follow queues the ends in a network namespace from now on. There can be a second queue for a while, which gets them when the first
// one has gone.
func (c *connects) follow(netNS uint64, q *endQueue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainLocked() // those of a former namespace with this number
	if c.queues == nil {
		c.queues = map[uint64][]*endQueue{}
	}
	c.queues[netNS] = append(c.queues[netNS], q)
}

// unfollow ends follow.
func (c *connects) unfollow(netNS uint64, q *endQueue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainLocked()
	rest := slices.DeleteFunc(c.queues[netNS], func(other *endQueue) bool { return other == q })
	if len(rest) == 0 {
		delete(c.queues, netNS)
	} else {
		c.queues[netNS] = rest
	}
}

// takeEnds appends the ends in the queue, but those of connections whose sockets have been destroyed since: their events have the
// outcome.
func (c *connects) takeEnds(q *endQueue, to []*closedChunk) []*closedChunk {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainLocked()
	for _, chunk := range q.chunks {
		for i := range chunk.records[:chunk.used] {
			if r := &chunk.records[i]; r.held {
				_, isUntaken := q.untaken[r.cookie]
				r.omitted = !isUntaken
			}
		}
	}
	c.forgot += uint64(q.hold(maxHeld / max(1, len(c.queues))))
	return q.takeChunks(to)
}

// destroyed returns the outcome of the connection of a socket that the kernel has destroyed. isReported: it was that of a failed
// attempt, which is an end of its own. connect is what is recorded of its last attempt, if isKnown.
func (c *connects) destroyed(q *endQueue, s *Socket, connect *bpf.Connect, isKnown bool) (outcome Outcome, isReported bool) {
	if !c.isOpen() {
		return OutcomeUnknown, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainLocked()
	outcome, isHeld := q.forget(s.Cookie)
	hasFailed := outcome.IsFailedConnect()
	if isKnown {
		hasFailed = connect.ConnectTime == 0
	}
	switch {
	case hasFailed && s.TCP.BytesAcked == 0: // else the peer has acknowledged the SYN, so that it was established
		if !isHeld {
			c.countMissed()
		}
		return outcome, true
	case !isHeld, outcome.IsFailedConnect():
		return OutcomeClosed, false
	default:
		return outcome, false
	}
}

// countMissed counts the end of an attempt whose socket has been destroyed although no end was reported: the kernel does not run the
// program for some changes of state that interrupt others, as those of timers do (__bpf_trace_run, kernel/trace/bpf_trace.c).
func (c *connects) countMissed() {
	if c.excused < c.lost()+c.forgot {
		c.excused++
	} else {
		c.missed++
	}
}

// lost returns the number of ends for which there was no room.
func (c *connects) lost() uint64 {
	lost := c.overflow
	if records := c.records.Load(); records != nil {
		lost += (*records).Lost()
	}
	return lost
}

// takeLost returns the number of ends that were lost since the last call.
func (c *connects) takeLost() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := c.lost() + c.missed
	n := lost - min(lost, c.reported)
	c.reported += n
	return int(n)
}

// openConnects loads the BPF program that records connects, if owners come from BPF too.
func (s *Scanner) openConnects() {
	if s.stats.OwnerMethod != OwnersBPF || s.connects.isOpen() {
		return
	}
	onlyNetNS := uint64(0)
	if slices.Equal(s.config.Namespaces, []string{NamespaceSelf}) {
		onlyNetNS = netns.Of(netns.ThreadDir)
	}
	recorded, err := bpf.OpenConnects(s.config.ProcRoot, onlyNetNS)
	if err != nil {
		s.fallbacks.markUnavailable(fallbackConnects, fmt.Errorf("processes of closed TCP sockets unavailable: %w", err))
		return
	}
	s.fallbacks.markAvailable(fallbackConnects)
	s.setConnects(recorded)
}

// setConnects sets the records, and makes the process cache keep ended processes: they can be initiators of closed connections.
func (s *Scanner) setConnects(records connectRecords) {
	s.connects.open(records)
	s.processes.keepsPast = true
	s.stats.Initiators = true
}

// setClosedConnect makes the attempt that of the closed socket, and its initiator the owner.
func (s *Scanner) setClosedConnect(connect *bpf.Connect) {
	s.current.setConnect(connect)
	if connect.CgroupID != 0 {
		s.socket.CgroupID = connect.CgroupID
		s.socket.fields |= FieldCgroupID
	}
	if s.current.initiator.process != nil {
		s.current.owners = append(s.current.owners, s.current.initiator.process)
	}
}
