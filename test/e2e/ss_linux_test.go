package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/cgroup"
)

// snapshot has the TCP and UDP sockets that ss shows in the namespace.
type snapshot struct {
	sockets []socket
	owners  map[int]owner      // of all processes that hold sockets, by process ID
	cgroups map[int]string     // of the same processes
	used    int64              // the number of sockets of any kind, from /proc/net/sockstat
	kernel  fields             // hostCounters
	limits  fields             // hostLimits
	last    map[uint64]holding // by cookie: of sockets that an earlier gather has seen with a holder
}

// holding is what a socket belonged to while a process held it.
type holding struct {
	owners  []owner
	cgroups map[string]string // by source
}

// socket is a socket that ss shows.
type socket struct {
	testnet.Row
	rtt      int64  // in microseconds; 0 if there is none
	counters fields // the counters of the socket, since it was made; nil if there are none
}

// owner has the tags by which procnetstat groups processes.
type owner struct{ name, user string }

// noOwner is the owner of sockets that belong to no process.
var noOwner = owner{unattributed, unattributed}

const unattributed = "unattributed"

func takeSnapshot(t *testing.T) snapshot {
	t.Helper()
	s := snapshot{owners: map[int]owner{}, cgroups: map[int]string{}, used: readSockstat(t)["sockets_used"], kernel: readKernelCounters(t), limits: readLimits(t)}
	for _, row := range testnet.SS(t, "-t", "-u", "-p", "-m", "-i") {
		s.sockets = append(s.sockets, socket{row, rttOf(t, row), countersOf(t, row)})
		for _, process := range row.Processes {
			s.owners[process.PID] = owner{escaped(process.Name), userOf(t, process.PID)}
			s.cgroups[process.PID] = cgroupOf(t, process.PID)
		}
	}
	return s
}

// readSockstat reads the fields of the host that come from /proc/net/sockstat.
func readSockstat(t *testing.T) fields {
	t.Helper()
	content, err := os.ReadFile("/proc/self/net/sockstat")
	if err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	found := fields{}
	for _, number := range []struct {
		field, pattern string
		unit           int64
	}{
		{"sockets_used", `(?m)^sockets: used (\d+)`, 1},
		{"tcp_orphan", `(?m)^TCP: .*\borphan (\d+)`, 1},
		{"tcp_alloc", `(?m)^TCP: .*\balloc (\d+)`, 1},
		{"tcp_mem_bytes", `(?m)^TCP: .*\bmem (\d+)`, page},
		{"udp_mem_bytes", `(?m)^UDP: .*\bmem (\d+)`, page},
	} {
		match := regexp.MustCompile(number.pattern).FindSubmatch(content)
		if match == nil {
			t.Fatalf("no %s in\n%s", number.field, content)
		}
		n, err := strconv.ParseInt(string(match[1]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		found[number.field] = n * number.unit
	}
	return found
}

// kernelCounters are the counters of the host that the kernel keeps, by what nstat calls those that they sum.
var kernelCounters = map[string][]string{
	"tcp_listen_overflows": {"TcpExt ListenOverflows"},
	"tcp_listen_drops":     {"TcpExt ListenDrops"},
	"tcp_attempt_fails":    {"Tcp AttemptFails"},
	"tcp_estab_resets":     {"Tcp EstabResets"},
	"tcp_out_rsts":         {"Tcp OutRsts"},
	"udp_no_ports":         {"Udp NoPorts", "Udp6 NoPorts"},
	"udp_rcvbuf_errors":    {"Udp RcvbufErrors", "Udp6 RcvbufErrors"},
	"udp_sndbuf_errors":    {"Udp SndbufErrors", "Udp6 SndbufErrors"},
}

var hostCounters = slices.Sorted(maps.Keys(kernelCounters))

// readKernelCounters reads the counters of the host from /proc/net/snmp, snmp6 and netstat.
func readKernelCounters(t *testing.T) fields {
	t.Helper()
	values := fields{}
	for _, file := range []string{"snmp", "netstat", "snmp6"} {
		content, err := os.ReadFile("/proc/self/net/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for line := range strings.Lines(string(content)) {
			words := strings.Fields(line)
			if file == "snmp6" {
				if name, isUDP := strings.CutPrefix(words[0], "Udp6"); isUDP {
					values["Udp6 "+name], _ = strconv.ParseInt(words[1], 10, 64)
				}
				continue
			}
			if names == nil {
				names = words
				continue
			}
			for i, name := range names[1:] {
				values[strings.TrimSuffix(words[0], ":")+" "+name], _ = strconv.ParseInt(words[i+1], 10, 64)
			}
			names = nil
		}
	}
	found := fields{}
	for field, sum := range kernelCounters {
		for _, name := range sum {
			value, isThere := values[name]
			if !isThere {
				t.Fatalf("the kernel has no %s", name)
			}
			found[field] += value
		}
	}
	return found
}

// hostLimits are the limits of the host in a network namespace that is not the first one.
var hostLimits = []string{"tcp_time_wait_limit", "local_ports"}

func readLimits(t *testing.T) fields {
	t.Helper()
	sysctl := func(name string) (values []int64) {
		content, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range strings.Fields(string(content)) {
			value, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				t.Fatalf("%s is %q", name, content)
			}
			values = append(values, value)
		}
		return values
	}
	if reserved := sysctl("ip_local_reserved_ports"); len(reserved) > 0 {
		t.Fatalf("the ports %v are reserved", reserved)
	}
	ports := sysctl("ip_local_port_range")
	return fields{"tcp_time_wait_limit": sysctl("tcp_max_tw_buckets")[0], "local_ports": ports[1] - ports[0] + 1}
}

// ssRTT matches milliseconds, which ss prints with six significant digits.
var ssRTT = regexp.MustCompile(`\srtt:([0-9.]+)/`)

func rttOf(t *testing.T, row testnet.Row) int64 {
	t.Helper()
	match := ssRTT.FindStringSubmatch(row.Line)
	if match == nil {
		return 0
	}
	milliseconds, err := strconv.ParseFloat(match[1], 64)
	if err != nil || milliseconds >= 1000 {
		t.Fatalf("%q has no microseconds (%v)", match[0], err)
	}
	return int64(math.Round(1000 * milliseconds))
}

var ssCounters = map[string]*regexp.Regexp{
	"tcp_bytes_acked":    regexp.MustCompile(`\sbytes_acked:(\d+)`),
	"tcp_bytes_received": regexp.MustCompile(`\sbytes_received:(\d+)`),
	"tcp_segs_out":       regexp.MustCompile(`\ssegs_out:(\d+)`),
	"tcp_segs_in":        regexp.MustCompile(`\ssegs_in:(\d+)`),
	"tcp_retrans_segs":   regexp.MustCompile(`\sretrans:\d+/(\d+)`),
}

// ssInfo matches a field that ss shows for every TCP socket with a tcp_info, which TIME_WAIT and SYN_RECV do not have.
var ssInfo = regexp.MustCompile(`\scwnd:\d`)

func countersOf(t *testing.T, row testnet.Row) fields {
	t.Helper()
	switch {
	case row.Netid == "udp":
		return fields{"udp_drops": int64(row.Drops)}
	case row.State == "LISTEN":
		return fields{"drops": int64(row.Drops)}
	case !ssInfo.MatchString(row.Line):
		return nil
	}
	counters := fields{}
	for name, pattern := range ssCounters {
		match := pattern.FindStringSubmatch(row.Line)
		if match == nil {
			continue // ss omits 0
		}
		n, err := strconv.ParseInt(match[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		counters[name] = n
	}
	if row.State == "SYN_SENT" {
		counters["tcp_syn_retrans"] = counters["tcp_retrans_segs"]
	}
	return counters
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

// cgroupOf returns the cgroup of a process: that of version 2, or the first one of version 1 that is not the root.
func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, hierarchy := range []string{"0::", `\d+:name=systemd:`, `\d+:memory:`, `\d+:(?:.*,)?cpu(?:,.*)?:`, `\d+:pids:`, `\d+:.*:`} {
		for _, match := range regexp.MustCompile(`(?m)^`+hierarchy+`(/.*)$`).FindAllSubmatch(content, -1) {
			if path := match[1]; !bytes.Equal(path, []byte("/")) {
				return string(path)
			}
		}
	}
	return "/"
}

// equal reports whether procnetstat would emit the same for both snapshots. The counters of sockets that retransmit may differ.
func (s snapshot) equal(other snapshot, retransmits func(owner) bool) bool {
	return slices.Equal(s.identities(retransmits), other.identities(retransmits))
}

func (s snapshot) identities(retransmits func(owner) bool) []string {
	listeners := s.listeners()
	all := []string{strconv.FormatInt(s.used, 10)}
	for _, r := range s.sockets {
		identity := fmt.Sprint(r.Netid, r.State, r.Local, r.Remote, r.RecvQ, r.SendQ, r.Inode, r.Processes, r.Cgroup, r.rtt)
		if slices.ContainsFunc(s.attributedTo(r, listeners), func(o owner) bool { return !retransmits(o) }) {
			identity += fmt.Sprint(r.counters)
		}
		all = append(all, identity)
	}
	slices.Sort(all)
	return all
}

// states counts the TCP sockets by state.
func (s snapshot) states() map[string]int {
	count := map[string]int{}
	for _, r := range s.sockets {
		if r.Netid == "tcp" {
			count[r.State]++
		}
	}
	return count
}

// each calls f with each socket and the series that procnetstat should count it in.
func (s snapshot) each(source string, f func(r socket, series []string)) {
	listeners := s.listeners()
	for _, r := range s.sockets {
		series := []string{hostSeries, cgroupSeries(s.cgroupOf(source, r, listeners))}
		at, isIncoming := listeners.of(r)
		for _, o := range s.attributedTo(r, listeners) {
			series = append(series, processSeries(o))
			switch {
			case isIncoming:
				series = append(series, listenerSeries(at, o))
			case isOutgoing(r):
				series = append(series, remoteSeries(r, o, s.processAt(r, listeners)))
			}
		}
		slices.Sort(series)
		f(r, slices.Compact(series))
	}
}

// attributedTo returns the owners that a socket counts for: its holders, or else those that held it last, or else the holders of
// its listener. It counts for only one of those that do not hold it: in these tests they all have the same name and user.
func (s snapshot) attributedTo(r socket, all listeners) []owner {
	owners := s.ownersOf(r)
	if len(owners) == 0 {
		owners = s.last[r.Cookie].owners
	}
	if at, _ := all.of(r); len(owners) == 0 {
		owners = s.ownersOf(all[at]...)
	}
	if len(owners) == 0 {
		owners = []owner{noOwner}
	}
	return owners
}

// processAt returns the name of the process that listens at the remote end of a socket, or an empty string. The sockets of these
// tests are connected to loopback addresses.
func (s snapshot) processAt(r socket, all listeners) string {
	remote := netip.AddrPortFrom(netip.AddrFrom16(r.Remote.Addr().As16()), r.Remote.Port())
	at, found := all.find(r.Netid, remote)
	if !found {
		return ""
	}
	return s.ownersOf(all[at]...)[0].name
}

// cgroupOf returns the cgroup of a socket: that of the socket itself, or else of its process if it is not the root, or else the one
// that it had while it was held, or else that of its listener.
func (s snapshot) cgroupOf(source string, r socket, all listeners) string {
	of := func(r socket) string {
		path := r.Cgroup
		if source == "procfs" || strings.HasPrefix(path, "unreachable:") { // /proc/net has no cgroups, and ss prints unreachable: for one without a path
			path = ""
		}
		if len(r.Processes) > 0 && (path == "" || path == "/") {
			path = s.cgroups[r.Processes[0].PID]
		}
		return path
	}
	path := of(r)
	if last, found := s.last[r.Cookie]; found && len(r.Processes) == 0 {
		return last.cgroups[source]
	}
	if at, isIncoming := all.of(r); isIncoming && len(r.Processes) == 0 && (path == "" || path == "/") {
		path = cmp.Or(of(all[at][0]), path)
	}
	return cmp.Or(path, unattributed)
}

// isOutgoing reports whether a socket without a listener is one end of a connection.
func isOutgoing(r socket) bool {
	return r.Remote.Port() != 0 && (r.Netid == "tcp" || r.State == "ESTABLISHED")
}

// expect returns the series that procnetstat should emit for the sockets, with all gauges that can be computed from the output of
// ss.
func (s snapshot) expect(source string) gather {
	want, rtts := gather{}, map[string][]int64{}
	ofGather := want.of(lastMeasurement)
	ofGather.zero("sockets", "unattributed", "folded_series")
	want.of(hostSeries)["sockets_used"] = s.used
	s.each(source, func(r socket, series []string) {
		ofGather["sockets"]++
		if slices.Contains(series, processSeries(noOwner)) {
			ofGather["unattributed"]++
		}
		for _, name := range series {
			f := want.of(name)
			f.zero(gauges(source, name)...)
			f.count(r, gauges(source, name))
			if r.State == "ESTABLISHED" && r.rtt > 0 {
				rtts[name] = append(rtts[name], r.rtt)
			}
		}
	})
	maps.Copy(want.of(hostSeries), s.limits)
	for _, name := range allNamespacesFields {
		delete(want[hostSeries], name)
	}
	for _, o := range s.owners {
		want.of(processSeries(o))["processes"]++
	}
	want.of(hostSeries)["local_ports_used"] = s.localPortsUsed()
	if source != "netlink" {
		return want
	}
	for name, times := range rtts {
		slices.Sort(times)
		for field, percent := range rttGauges {
			rank := (len(times)*percent + 99) / 100
			want[name][field] = times[rank-1]
		}
	}
	return want
}

// localPortsUsed returns the most local ports that outgoing TCP connections from one address to one endpoint hold.
func (s snapshot) localPortsUsed() (most int64) {
	type pair struct {
		local  netip.Addr
		remote netip.AddrPort
	}
	used, listeners := map[pair]int64{}, s.listeners()
	for _, r := range s.sockets {
		if _, isIncoming := listeners.of(r); r.Netid == "tcp" && !isIncoming && isOutgoing(r) {
			p := pair{r.Local.Addr().Unmap(), netip.AddrPortFrom(r.Remote.Addr().Unmap(), r.Remote.Port())}
			used[p]++
			most = max(most, used[p])
		}
	}
	return most
}

const hostSeries = "procnetstat"

func processSeries(o owner) string {
	return seriesName("procnetstat_process", map[string]string{"process_name": o.name, "user": o.user})
}

func listenerSeries(at endpoint, o owner) string {
	return seriesName("procnetstat_listener", map[string]string{
		"protocol": at.protocol, "local_address": at.Addr().String(), "local_port": strconv.Itoa(int(at.Port())), "process_name": o.name,
	})
}

func remoteSeries(r socket, o owner, remoteProcess string) string {
	return seriesName("procnetstat_remote", map[string]string{
		"protocol": r.Netid, "remote_address": r.Remote.Addr().Unmap().String(), "remote_port": strconv.Itoa(int(r.Remote.Port())),
		"process_name": o.name, "remote_process_name": remoteProcess,
	})
}

func cgroupSeries(path string) string {
	of := cgroup.WorkloadOf(path)
	return seriesName("procnetstat_cgroup", map[string]string{
		"cgroup": path, "systemd_unit": of.SystemdUnit, "container_id": of.ContainerID, "pod_uid": of.PodUID,
	})
}

// ownersOf returns the owners of the sockets without duplicates.
func (s snapshot) ownersOf(sockets ...socket) []owner {
	var owners []owner
	for _, r := range sockets {
		for _, process := range r.Processes {
			if o := s.owners[process.PID]; !slices.Contains(owners, o) {
				owners = append(owners, o)
			}
		}
	}
	return owners
}

// endpoint is a protocol of ss, and an address and port.
type endpoint struct {
	protocol string
	netip.AddrPort
}

// listeners has the sockets that listen, or are bound UDP sockets without a peer, by protocol, address and port.
type listeners map[endpoint][]socket

func (s snapshot) listeners() listeners {
	l := listeners{}
	for _, r := range s.sockets {
		if r.State == "LISTEN" || isUDPListener(r) {
			at := endpointOf(r.Netid, r.Local)
			l[at] = append(l[at], r)
		}
	}
	return l
}

// isUDPListener reports whether a socket is a UDP socket without a peer. ss shows only those that have a port.
func isUDPListener(r socket) bool { return r.Netid == "udp" && r.Remote.Port() == 0 }

func endpointOf(protocol string, local netip.AddrPort) endpoint {
	return endpoint{protocol, netip.AddrPortFrom(local.Addr().Unmap(), local.Port())}
}

// of returns the listener that a socket is part of, or that accepted it.
func (l listeners) of(r socket) (at endpoint, isIncoming bool) {
	if r.Netid == "udp" && !isUDPListener(r) {
		return endpoint{}, false
	}
	return l.find(r.Netid, r.Local)
}

// find returns the listener at an address, or else at the wildcard address. An IPv4-mapped address matches both wildcards.
func (l listeners) find(protocol string, local netip.AddrPort) (at endpoint, found bool) {
	candidates := []netip.Addr{local.Addr().Unmap()}
	if local.Addr().Is6() {
		candidates = append(candidates, netip.IPv6Unspecified())
	}
	if local.Addr().Unmap().Is4() {
		candidates = append(candidates, netip.IPv4Unspecified())
	}
	for _, addr := range candidates {
		if at := (endpoint{protocol, netip.AddrPortFrom(addr, local.Port())}); len(l[at]) > 0 {
			return at, true
		}
	}
	return endpoint{}, false
}

// The fields of measurements of groups of sockets.
var (
	tcpGauges = []string{
		"tcp_established", "tcp_syn_sent", "tcp_syn_recv", "tcp_fin_wait1", "tcp_fin_wait2", "tcp_time_wait", "tcp_close",
		"tcp_close_wait", "tcp_last_ack", "tcp_listen", "tcp_closing", "tcp_rx_queue", "tcp_tx_queue",
	}
	tcpCounters = []string{"tcp_bytes_acked", "tcp_bytes_received", "tcp_segs_out", "tcp_segs_in", "tcp_retrans_segs"}
	udpGauges   = []string{"udp_socket", "udp_rx_queue", "udp_tx_queue"}
	udpCounters = []string{"udp_drops"}
)

// rttGauges are the percentiles of round-trip times by field, which a series without an established connection does not have.
var rttGauges = map[string]int{"tcp_rtt_p50_us": 50, "tcp_rtt_p95_us": 95, "tcp_rtt_max_us": 100}

// allNamespacesFields are the fields of the host that the kernel counts for all network namespaces together.
var allNamespacesFields = []string{"tcp_orphan", "tcp_alloc", "tcp_mem_bytes", "udp_mem_bytes"}

// gauges returns the names of the fields of a series that are not counters, without rttGauges.
func gauges(source, series string) []string {
	both := slices.Concat(tcpGauges, udpGauges)
	switch measurement, _, _ := strings.Cut(series, ","); measurement {
	case hostSeries:
		return slices.Concat(both, []string{"tcp_none", "sockets_used", "local_ports_used"}, allNamespacesFields, hostLimits)
	case "procnetstat_process":
		return append(both, "processes")
	case "procnetstat_cgroup":
		return both
	case "procnetstat_remote":
		if isUDP(series) {
			return udpGauges
		}
		return without("tcp_listen", tcpGauges)
	case "procnetstat_listener":
		if isUDP(series) {
			return udpGauges
		}
		queues := []string{"accept_queue"}
		if source == "netlink" {
			queues = append(queues, "accept_queue_limit", "accept_queue_used_percent")
		}
		return slices.Concat(without("tcp_syn_sent", tcpGauges), queues)
	default:
		return []string{"duration_ns", "sockets", "processes", "unattributed", "denied", "folded_series", "interrupted", "connects_seen"}
	}
}

func without(name string, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}

// counters returns the names of all fields of a series that are counters.
func counters(source, series string) []string {
	var tcp, listeners []string
	if source == "netlink" { // without closed_connections, which the other fields of the set connects need
		tcp, listeners = append(slices.Clone(tcpCounters), "tcp_syn_retrans"), append(slices.Clone(tcpCounters), "drops")
	}
	switch measurement, _, _ := strings.Cut(series, ","); measurement {
	case hostSeries:
		return slices.Concat(tcp, udpCounters, hostCounters)
	case "procnetstat_process", "procnetstat_cgroup":
		return slices.Concat(tcp, udpCounters)
	case "procnetstat_remote":
		if isUDP(series) {
			return udpCounters
		}
		return tcp
	case "procnetstat_listener":
		if isUDP(series) {
			return udpCounters
		}
		return listeners
	default:
		return nil
	}
}

// isUDP reports whether a series is of a UDP listener or peer.
func isUDP(series string) bool { return strings.Contains(series, `,protocol="udp"`) }

func (f fields) zero(names ...string) {
	for _, name := range names {
		f[name] += 0
	}
}

// count adds a socket to the fields of a series that are in names.
func (f fields) count(r socket, names []string) {
	add := func(name string, n uint32) {
		if slices.Contains(names, name) {
			f[name] += int64(n)
		}
	}
	switch {
	case r.Netid == "udp":
		add("udp_socket", 1)
		add("udp_rx_queue", r.RecvQ)
		add("udp_tx_queue", r.SendQ)
	case r.State == "LISTEN":
		add("tcp_listen", 1)
		add("accept_queue", r.RecvQ)
		add("accept_queue_limit", r.SendQ)
		if name := "accept_queue_used_percent"; slices.Contains(names, name) { // of the fullest
			f[name] = max(f[name], 100*int64(r.RecvQ)/max(int64(r.SendQ), 1))
		}
	default:
		add("tcp_"+strings.ToLower(r.State), 1)
		add("tcp_rx_queue", r.RecvQ)
		add("tcp_tx_queue", r.SendQ)
	}
}
