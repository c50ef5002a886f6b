package testnet

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestProbe(t *testing.T) {
	Isolate(t, func() {
		r := StartRouter(t)
		c := Start(t, Process{Name: "client"})
		Sysctl(t, "net.ipv4.tcp_syn_retries", "1")
		for _, nw := range []string{"tcp4", "tcp6"} {
			for _, a := range []Answer{Refuse, Drop, DropFirstSYN, Reset, RouteUnreachable, RouteProhibit, RouteBlackhole, ICMPNet4, ICMPHost4, ICMPProto4, ICMPPort4, ICMPAdmin4, ICMPNoRoute6, ICMPAddr6, ICMPPort6, ICMPAdmin6, ICMPPolicy6, ICMPReject6} {
				if nw == "tcp4" && strings.HasPrefix(string(a), "icmpv6") || nw == "tcp6" && strings.HasPrefix(string(a), "icmp ") {
					continue
				}
				to := netip.AddrPortFrom(r.Address(nw, a), 80)
				for _, nb := range []bool{false, true} {
					for _, x := range c.Attempt(Attempts{To: to, N: 2, NonBlocking: nb}) {
						t.Logf("%s %-30s nonblocking %-5t: %d %v %v %v", nw, a, nb, int(x.Errno), x.Errno, x.Took.Round(10*time.Microsecond), x.Socket.Local)
					}
				}
			}
		}
		for _, n := range []netip.Addr{r.Neighbor4, r.Neighbor6} {
			t.Log(c.Attempt(Attempts{To: netip.AddrPortFrom(n, 80), N: 2}))
		}
	})
}
