package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Router is a process in a network namespace of its own, through which this namespace reaches 198.18.0.0/15 and 2001:db8::/32. See
// [Router.Address] for how the addresses answer. Listeners of the process can have those of the answers Refuse and DropFirstSYN.
//
// The link between the namespaces is a pair of TAP devices, between which the process copies frames, and delays those to this namespace
// by a millisecond or by [Router.Delay]. Over veth devices the answer to a SYN would arrive while connect(2) holds the socket: see
// [RejectPort].
type Router struct {
	*Proc
	// Neighbor4 and Neighbor6 are addresses on the link that nobody has: ARP and NDP get no answer, and give up after 0.3 seconds.
	Neighbor4, Neighbor6 netip.Addr

	tb        testing.TB
	addresses int
}

// An Answer is how the router answers connections to an address.
type Answer string

// Answers of the router. Those of ICMP exist for one family.
const (
	Refuse       Answer = "refuse"         // the address is the router's: RST unless there is a listener
	Drop         Answer = "drop"           // no answer
	DropFirstSYN Answer = "drop first SYN" // as Refuse, but the first SYN of each 4-tuple is dropped
	TCPReset     Answer = "tcp reset"      // RST by a rule

	// Of IPv4 the kernel rejects five packets by a route, then one a second; the limit cannot be set in a network namespace.
	RouteUnreachable Answer = "route unreachable"
	RouteProhibit    Answer = "route prohibit"
	RouteBlackhole   Answer = "route blackhole" // no answer

	ICMPNet4   Answer = "icmp type net-unreachable"
	ICMPHost4  Answer = "icmp type host-unreachable"
	ICMPProto4 Answer = "icmp type prot-unreachable"
	ICMPPort4  Answer = "icmp type port-unreachable"
	ICMPAdmin4 Answer = "icmp type admin-prohibited"

	ICMPNoRoute6 Answer = "icmpv6 type no-route"
	ICMPAddr6    Answer = "icmpv6 type addr-unreachable"
	ICMPPort6    Answer = "icmpv6 type port-unreachable"
	ICMPAdmin6   Answer = "icmpv6 type admin-prohibited"
	ICMPPolicy6  Answer = "icmpv6 type policy-fail"
	ICMPReject6  Answer = "icmpv6 type reject-route"
)

// StartRouter connects this network namespace to that of a new process. It requires Isolate, ip and nft. Rules answer without a limit of
// the rate.
func StartRouter(tb testing.TB) *Router {
	tb.Helper()
	if os.Getenv(insideEnv) == "" {
		tb.Fatal("a router requires Isolate")
	}
	Require(tb, "ip", "nft", "nsenter")
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		SkipOrFail(tb, fmt.Sprintf("no TAP devices: %v", err))
	}
	r := &Router{
		Proc: Start(tb, Process{Name: "router", Netns: true}), tb: tb,
		Neighbor4: netip.MustParseAddr("10.99.0.99"), Neighbor6: netip.MustParseAddr("fd99::99"),
	}
	r.Delay(time.Millisecond)
	run(tb, "ip", "address", "add", "10.99.0.1/24", "dev", "uplink")
	run(tb, "ip", "address", "add", "fd99::1/64", "dev", "uplink", "nodad")
	r.run("ip", "address", "add", "10.99.0.2/24", "dev", "clients")
	r.run("ip", "address", "add", "fd99::2/64", "dev", "clients", "nodad")
	run(tb, "ip", "link", "set", "uplink", "up")
	r.run("ip", "link", "set", "clients", "up")
	run(tb, "ip", "route", "add", "198.18.0.0/15", "via", "10.99.0.2")
	run(tb, "ip", "route", "add", "2001:db8::/32", "via", "fd99::2")

	for _, family := range []string{"ipv4", "ipv6"} {
		Sysctl(tb, "net."+family+".neigh.uplink.retrans_time_ms", "100")
	}
	for name, value := range map[string]string{
		"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1",
		"net.ipv4.icmp_ratemask": "0", "net.ipv6.icmp.ratelimit": "0", "net.ipv6.icmp.ratemask": "255",
	} {
		r.Sysctl(name, value)
	}
	r.nft(rejectChain)
	r.nft("add set inet testnet seen4 { type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic; timeout 1h; }")
	r.nft("add set inet testnet seen6 { type ipv6_addr . inet_service . ipv6_addr . inet_service; flags dynamic; timeout 1h; }")
	return r
}

// Address returns a new address that answers as given. The network is tcp4 or tcp6.
func (r *Router) Address(network string, answer Answer) netip.Addr {
	r.tb.Helper()
	if network != "tcp4" && network != "tcp6" {
		r.tb.Fatalf("unknown network %q: want tcp4 or tcp6", network)
	}
	r.addresses++
	family, seen, a := "ip", "seen4", netip.AddrFrom4([4]byte{198, 18, byte(r.addresses >> 8), byte(r.addresses)})
	if network == "tcp6" {
		a = netip.MustParseAddr("2001:db8::").Next()
		b := a.As16()
		b[14], b[15] = byte(r.addresses>>8), byte(r.addresses)
		family, seen, a = "ip6", "seen6", netip.AddrFrom16(b)
	}
	to := fmt.Sprintf("add rule inet testnet input %s daddr %s tcp dport != 0 ", family, a)
	kind, isRoute := strings.CutPrefix(string(answer), "route ")
	if isRoute {
		r.run("ip", "route", "add", kind, a.String())
		return a
	}
	r.run("ip", "route", "add", "local", a.String(), "dev", "lo")
	switch answer {
	case Refuse:
	case Drop:
		r.nft(to + "drop")
	case DropFirstSYN:
		tuple := fmt.Sprintf("%[1]s saddr . tcp sport . %[1]s daddr . tcp dport", family)
		r.nft(fmt.Sprintf("%s tcp flags & (syn | ack) == syn %s != @%s add @%s { %[2]s } drop", to, tuple, seen, seen))
	default:
		r.nft(to + "reject with " + string(answer))
	}
	return a
}

// RejectPort rejects connections to a port of this namespace by a rule, with one of the answers of ICMP. It requires Isolate and nft.
//
// The answer arrives while connect(2) holds the socket, as from any rule on the host of the client. The kernel then does not fail the
// attempt; the answer to the second SYN does, a second later. With IPv4, poll(2) nevertheless returns POLLERR at once and SO_ERROR the
// error, while the socket is in SYN_SENT: a non-blocking client closes a socket whose attempt has not failed.
func RejectPort(tb testing.TB, port uint16, answer Answer) {
	tb.Helper()
	if os.Getenv(insideEnv) == "" {
		tb.Fatal("rejecting a port requires Isolate")
	}
	Require(tb, "nft")
	run(tb, "nft", rejectChain)
	family := "ipv4"
	if strings.HasPrefix(string(answer), "icmpv6") {
		family = "ipv6"
	}
	run(tb, "nft", fmt.Sprintf("add rule inet testnet input meta nfproto %s tcp dport %d reject with %s", family, port, answer))
}

// rejectChain creates the chain unless it exists.
const rejectChain = "add table inet testnet; add chain inet testnet input { type filter hook input priority 0; }"

// Delay sets the time that the link takes to this namespace. In the other direction it takes none.
func (r *Router) Delay(d time.Duration) {
	r.tb.Helper()
	r.do(request{Op: opRelay, Relay: Relay{Netns: fmt.Sprintf("/proc/%d/ns/net", os.Getpid()), Delay: d}})
}

// Sysctl sets a kernel parameter of the router's network namespace.
func (r *Router) Sysctl(name, value string) {
	r.tb.Helper()
	if err := inNetns(r.Netns(), func() error { return writeSysctl(name, value) }); err != nil {
		r.tb.Fatal(err)
	}
}

// Sysctl sets a kernel parameter of this network namespace, which requires Isolate.
func Sysctl(tb testing.TB, name, value string) {
	tb.Helper()
	if os.Getenv(insideEnv) == "" {
		tb.Fatal("setting a kernel parameter requires Isolate")
	}
	if err := writeSysctl(name, value); err != nil {
		tb.Fatal(err)
	}
}

func writeSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0o600)
}

func (r *Router) nft(rules string) {
	r.tb.Helper()
	r.run("nft", rules)
}

// run runs a command in the network namespace of the router.
func (r *Router) run(command ...string) {
	r.tb.Helper()
	run(r.tb, append([]string{"nsenter", "--net=" + r.Netns()}, command...)...)
}

func run(tb testing.TB, command ...string) {
	tb.Helper()
	out, err := exec.CommandContext(tb.Context(), command[0], command[1:]...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%v: %v: %s", command, err, out)
	}
}

// A Relay configures the link of a router: see [Router.Delay].
type Relay struct {
	Netns string // the network namespace that the router connects
	Delay time.Duration
}

// relay copies frames between the TAP devices of two network namespaces.
type relay struct {
	running bool
	delay   atomic.Int64 // of frames to the connected namespace, in nanoseconds
}

func (l *relay) set(c Relay) error {
	l.delay.Store(int64(c.Delay))
	if l.running {
		return nil
	}
	near, err := openTAP("clients")
	if err != nil {
		return err
	}
	var far *os.File
	err = inNetns(c.Netns, func() (err error) {
		far, err = openTAP("uplink")
		return err
	})
	if err != nil {
		return err
	}
	l.running = true
	go copyFrames(near, far, new(atomic.Int64))
	go copyFrames(far, near, &l.delay)
	return nil
}

// openTAP creates a TAP device, which ends with the process.
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	ifreq, err := unix.NewIfreq(name)
	if err == nil {
		ifreq.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifreq)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("creating TAP device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// copyFrames copies frames in their order, each after the delay. While the devices are not up, reading and writing fail.
func copyFrames(to, from *os.File, delay *atomic.Int64) {
	const maxFrame, maxQueued = 2048, 4096
	type frame struct {
		due   time.Time
		bytes []byte
	}
	frames := make(chan frame, maxQueued)
	go func() {
		for f := range frames {
			time.Sleep(time.Until(f.due))
			_, _ = to.Write(f.bytes)
		}
	}()
	for {
		buffer := make([]byte, maxFrame)
		n, err := from.Read(buffer)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil {
			frames <- frame{time.Now().Add(time.Duration(delay.Load())), buffer[:n]}
		}
	}
}
