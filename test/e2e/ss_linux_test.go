package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// snapshot is what ss says of the TCP and UDP sockets of the namespace.
type snapshot struct {
	rows   []testnet.Row
	owners map[int]owner // of all processes that hold one, by process id
}

// owner is what procnetstat tells processes apart by.
type owner struct{ name, user string }

// noOwner is that of the sockets that belong to no process.
var noOwner = owner{"unattributed", "unattributed"}

func takeSnapshot(t *testing.T) snapshot {
	t.Helper()
	s := snapshot{testnet.SS(t, "-t", "-u", "-p", "-m"), map[int]owner{}}
	for _, row := range s.rows {
		for _, process := range row.Processes {
			s.owners[process.PID] = owner{escaped(process.Name), userOf(t, process.PID)}
		}
	}
	return s
}

func userOf(t *testing.T, pid int) string {
	t.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		t.Fatal(err)
	}
	uid := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid))
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}

// equal tells whether nothing changed that procnetstat shows, except for drops.
func (s snapshot) equal(other snapshot) bool {
	return slices.Equal(s.identities(), other.identities())
}

func (s snapshot) identities() []string {
	var all []string
	for _, r := range s.rows {
		all = append(all, fmt.Sprint(r.Netid, r.State, r.Local, r.Remote, r.RecvQ, r.SendQ, r.Inode, r.Processes))
	}
	slices.Sort(all)
	return all
}

// states counts the TCP sockets by state.
func (s snapshot) states() map[string]int {
	count := map[string]int{}
	for _, row := range s.rows {
		if row.Netid == "tcp" {
			count[row.State]++
		}
	}
	return count
}

// expect returns the series that procnetstat should make of the sockets, with those fields that ss can tell.
func (s snapshot) expect() gather {
	want, listeners := gather{}, s.listeners()
	want.of(hostSeries).zero("tcp_none")
	ofGather := want.of(lastMeasurement)
	ofGather.zero("sockets", "unattributed", "folded_series")
	for _, row := range s.rows {
		want.of(hostSeries).count(row)
		ofGather["sockets"]++

		at, cameIn := listeners.of(row)
		owners := s.ownersOf(row)
		if len(owners) == 0 {
			owners = s.ownersOf(listeners[at]...)
		}
		if len(owners) == 0 {
			owners = []owner{noOwner}
			ofGather["unattributed"]++
			want.of(processSeries(noOwner)).zero("processes")
		}
		for _, o := range owners {
			want.of(processSeries(o)).count(row)
		}
		if cameIn {
			for _, o := range s.ownersOf(listeners[at]...) {
				want.of(listenerSeries(at, o)).countOfListener(row)
			}
		}
	}
	for _, o := range s.owners {
		want.of(processSeries(o))["processes"]++
	}
	return want
}

// drops returns the drops of each series of listeners.
func (s snapshot) drops() fields {
	drops := fields{}
	for at, rows := range s.listeners() {
		for _, row := range rows {
			for _, o := range s.ownersOf(row) {
				drops[listenerSeries(at, o)] += int64(row.Drops)
			}
		}
	}
	return drops
}

const hostSeries = "procnetstat"

func processSeries(o owner) string {
	return seriesName("procnetstat_process", map[string]string{"process_name": o.name, "user": o.user})
}

func listenerSeries(at netip.AddrPort, o owner) string {
	return seriesName("procnetstat_listener", map[string]string{
		"protocol": "tcp", "local_address": at.Addr().String(), "local_port": strconv.Itoa(int(at.Port())), "process_name": o.name,
	})
}

// ownersOf returns whom the sockets belong to, each once.
func (s snapshot) ownersOf(rows ...testnet.Row) []owner {
	var owners []owner
	for _, row := range rows {
		for _, process := range row.Processes {
			if o := s.owners[process.PID]; !slices.Contains(owners, o) {
				owners = append(owners, o)
			}
		}
	}
	return owners
}

// listeners are the sockets that listen, by address and port.
type listeners map[netip.AddrPort][]testnet.Row

func (s snapshot) listeners() listeners {
	l := listeners{}
	for _, row := range s.rows {
		if row.State == "LISTEN" {
			at := listensAt(row.Local)
			l[at] = append(l[at], row)
		}
	}
	return l
}

func listensAt(local netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
}

// of returns where the listener is that a TCP socket came in through, or is part of.
func (l listeners) of(row testnet.Row) (at netip.AddrPort, cameIn bool) {
	if row.Netid != "tcp" {
		return netip.AddrPort{}, false
	}
	candidates := []netip.Addr{row.Local.Addr().Unmap()}
	if row.Local.Addr().Is6() {
		candidates = append(candidates, netip.IPv6Unspecified())
	}
	if row.Local.Addr().Unmap().Is4() {
		candidates = append(candidates, netip.IPv4Unspecified())
	}
	for _, addr := range candidates {
		if at := netip.AddrPortFrom(addr, row.Local.Port()); len(l[at]) > 0 {
			return at, true
		}
	}
	return netip.AddrPort{}, false
}

// tcpFields and udpFields are the fields of a group of sockets.
var (
	tcpFields = []string{
		"tcp_established", "tcp_syn_sent", "tcp_syn_recv", "tcp_fin_wait1", "tcp_fin_wait2", "tcp_time_wait", "tcp_close",
		"tcp_close_wait", "tcp_last_ack", "tcp_listen", "tcp_closing", "tcp_rx_queue", "tcp_tx_queue",
	}
	udpFields = []string{"udp_socket", "udp_rx_queue", "udp_tx_queue"}
)

func (f fields) zero(names ...string) {
	for _, name := range names {
		f[name] += 0
	}
}

// count counts a socket in a group of sockets.
func (f fields) count(row testnet.Row) {
	f.zero(tcpFields...)
	f.zero(udpFields...)
	f.add(row)
}

// countOfListener counts a listener or a connection of one.
func (f fields) countOfListener(row testnet.Row) {
	f.zero(tcpFields...)
	f.add(row)
	if row.State == "LISTEN" {
		f["accept_queue"] += int64(row.RecvQ)
		f["accept_queue_limit"] += int64(row.SendQ)
	}
}

func (f fields) add(row testnet.Row) {
	switch {
	case row.Netid == "udp":
		f["udp_socket"]++
		f["udp_rx_queue"] += int64(row.RecvQ)
		f["udp_tx_queue"] += int64(row.SendQ)
	case row.State == "LISTEN":
		f["tcp_listen"]++
	default:
		f["tcp_"+strings.ToLower(row.State)]++
		f["tcp_rx_queue"] += int64(row.RecvQ)
		f["tcp_tx_queue"] += int64(row.SendQ)
	}
}
