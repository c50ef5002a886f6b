package testnet

import (
	"os"
	"strings"
	"testing"
)

func TestUDP(t *testing.T) {
	Isolate(t, func() {
		load := UDP(t)
		checkRows(t, SS(t, "-A", "tcp,udp"), load)
		checkVariety(t, load, "udp", "udp6")
		drops := make(map[uint64]uint32)
		for _, row := range SS(t, "-um") {
			drops[row.Inode] = row.Drops
		}
		sum := 0
		for _, s := range load.Sockets {
			sum += int(s.Drops)
			if drops[s.Inode] != s.Drops {
				t.Errorf("%+v: ss shows %d drops", s, drops[s.Inode])
			}
		}
		if sum == 0 {
			t.Error("no socket dropped any datagram")
		}
	})
}

func TestUDPLite(t *testing.T) {
	Isolate(t, func() {
		load, ok := UDPLite(t)
		if _, err := os.Stat("/proc/net/udplite"); ok != (err == nil) { // newer kernels do not have it
			t.Fatalf("UDP-Lite sockets supported: %v, /proc/net/udplite: %v", ok, err)
		}
		if ok {
			checkVariety(t, load, "udplite", "udplite6")
		}
	})
}

// checkVariety checks that a load has connected and unconnected sockets of each protocol, and one with unread data.
func checkVariety(t *testing.T, load *Load, protocols ...string) {
	t.Helper()
	for _, protocol := range protocols {
		unread := false
		states := make(map[string]bool)
		for _, s := range load.Sockets {
			if s.Protocol == protocol {
				states[s.State] = true
				unread = unread || s.RecvQ > 0
			}
		}
		if !states["CLOSE"] || !states["ESTABLISHED"] || !unread {
			t.Errorf("%s: states %v, unread data: %v", protocol, states, unread)
		}
	}
}

func TestRaw(t *testing.T) {
	Isolate(t, func() {
		load := Raw(t)
		if len(load.Sockets) != 3 {
			t.Errorf("sockets %+v", load.Sockets)
		}
		rows := SS(t, "-A", "raw,tcp")
		if len(rows) != len(load.Sockets) {
			t.Errorf("ss shows %+v", rows)
		}
	})
}

func TestPing(t *testing.T) {
	Isolate(t, func() {
		load := Ping(t)
		count := make(map[string]int)
		for _, s := range load.Sockets {
			count[s.Protocol]++
		}
		if len(load.Sockets) != 4 || count["icmp"] != 2 || count["icmp6"] != 2 {
			t.Errorf("sockets %+v", load.Sockets)
		}
	})
}

func TestUnix(t *testing.T) {
	Isolate(t, func() {
		sockets := Unix(t)
		shown := make(map[UnixSocket]bool)
		types := map[string]string{"u_str": "stream", "u_dgr": "dgram", "u_seq": "seqpacket"}
		rows := SS(t, "-x")
		for _, r := range rows {
			shown[UnixSocket{types[r.Netid], r.State, r.Path, r.Inode, r.Peer}] = true
		}
		for _, s := range sockets {
			if !shown[s] {
				t.Errorf("ss does not show %+v", s)
			}
		}
		if len(sockets) != 20 {
			t.Errorf("%d sockets, want 20", len(sockets))
		}
		procNet, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(procNet), "\n") - 1; got != len(sockets) {
			t.Errorf("/proc/net/unix shows %d sockets, want %d", got, len(sockets))
		}
	})
}
