package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// allMeasurementsConfig enables all measurements and protocols. It has connections twice: with tags that are unique for each
// socket of an Internet protocol, and with the default tags.
const allMeasurementsConfig = `
[[inputs.procnetstat]]
  source = %[1]q
  closed_connections = "off"
  measurements = ["host", "process", "listener", "cgroup", "remote", "connection", "gather"]
  protocols = ["tcp", "udp", "raw", "icmp", "unix"]
  connection_tags = ["protocol", "state", "src", "src_port", "dest", "dest_port", "process_name", "user"]
[[inputs.procnetstat]]
  source = %[1]q
  closed_connections = "off"
  measurements = ["connection", "gather"]
  protocols = ["tcp", "udp", "raw", "icmp", "unix"]
  name_suffix = "` + defaultTags + `"
`

// allMeasurementsFrom sets the source of allMeasurementsConfig. For netlink it sets auto, because sock_diag never has ping
// sockets and may lack other protocols.
func allMeasurementsFrom(source string) string {
	if source == "netlink" {
		source = "auto"
	}
	return fmt.Sprintf(allMeasurementsConfig, source)
}

const (
	connectionMeasurement = "procnetstat_connection"
	defaultTags           = "_with_default_tags"
)

// Every measurement reaches InfluxDB: no field has two types, and there is a point for every socket.
func TestAllMeasurements(t *testing.T) {
	for _, source := range []string{"netlink", "procfs"} {
		t.Run(source, func(t *testing.T) {
			setUp(t)
			program := customTelegraf(t)
			testnet.Isolate(t, func() {
				p := startPipeline(t, program, allMeasurementsFrom(source), lastMeasurement, lastMeasurement+defaultTags)
				startLoad(t)
				sockets := map[string]int{"unix": len(testnet.Unix(t))}
				for _, s := range slices.Concat(testnet.Raw(t).Sockets, testnet.Ping(t).Sockets) {
					sockets[protocolOf(s.Protocol, s.Local.Addr().Is4())]++
				}
				m := p.measure()
				for _, s := range m.before.sockets {
					sockets[protocolOf(s.Netid, s.Local.Addr().Is4())]++
				}

				for _, at := range m.gathers {
					requirePoints(t, p.telegraf.points[at], sockets)
				}
				requireConnections(t, source, m, sockets)
				requireFields(t, m.stored, hostSeries, m.before.expect(source)[hostSeries])
				requireFields(t, m.stored, hostSeries, fields{
					"unix_socket": int64(sockets["unix"]), "raw_socket": int64(sockets["raw4"] + sockets["raw6"]),
					"icmp_socket": int64(sockets["icmp4"] + sockets["icmp6"]),
				})
				p.end("state", "src", "dest", "name")
			})
		})
	}
}

// protocolOf converts a protocol of ss or testnet (tcp, tcp6, raw, icmp6, …) to procnetstat's name of it.
func protocolOf(name string, isIPv4 bool) string {
	if isIPv4 {
		return strings.TrimSuffix(name, "6") + "4"
	}
	return strings.TrimSuffix(name, "6") + "6"
}

// requirePoints checks that a gather has as many points of each protocol as there are sockets, each with tags of its own.
func requirePoints(t *testing.T, points, sockets map[string]int) {
	t.Helper()
	got := map[string]int{}
	for series, n := range points {
		if name, _, _ := strings.Cut(series, ","); strings.HasPrefix(name, connectionMeasurement) {
			_, value, _ := strings.Cut(series, `,protocol="`)
			protocol, _, _ := strings.Cut(value, `"`)
			got[protocol] += n
			if n > 1 {
				t.Errorf("%d points are %s", n, series)
			}
		}
	}
	if !maps.Equal(got, sockets) {
		t.Errorf("points by protocol: %v, want %v", got, sockets)
	}
}

// requireConnections checks that InfluxDB has a point with the values of ss for each TCP and UDP socket, and a point for each raw,
// ICMP and unix socket.
func requireConnections(t *testing.T, source string, m measurement, sockets map[string]int) {
	t.Helper()
	want := gather{}
	for _, s := range m.before.sockets {
		f := want.of(m.before.connectionSeries(s))
		f["rx_queue"], f["tx_queue"] = int64(s.RecvQ), int64(s.SendQ)
		if s.Inode != 0 {
			f["inode"] = int64(s.Inode)
		}
		if source == "procfs" && s.State == "LISTEN" {
			f["tx_queue"] = 0 // /proc/net does not show the limit of the accept queue
		}
		if source == "netlink" && s.Netid == "tcp" && s.counters != nil && s.State != "LISTEN" {
			if s.rtt != 0 {
				f["rtt_us"] = s.rtt
			}
			f["bytes_received"] = s.counters["tcp_bytes_received"]
		}
	}
	got, points := m.stored.measurement(connectionMeasurement), map[string]int{}
	for series := range got {
		for _, protocol := range []string{"raw", "icmp", "unix"} {
			if strings.Contains(series, `,protocol="`+protocol) {
				delete(got, series)
				points[protocol]++
			}
		}
	}
	for _, protocol := range []string{"raw", "icmp", "unix"} {
		if n := sockets[protocol] + sockets[protocol+"4"] + sockets[protocol+"6"]; points[protocol] != n {
			t.Errorf("%d points of %s sockets, want %d", points[protocol], protocol, n)
		}
	}
	requireSeries(t, got, connectionMeasurement, want)
	for series, f := range got {
		for _, field := range []string{"inode", "rtt_us"} { // absent without a value
			value, found := f[field]
			if _, expected := want[series][field]; found && !expected {
				t.Errorf("%s has %s=%d", series, field, value)
			}
		}
	}
}

// connectionSeries returns the series of a TCP or UDP socket.
func (s snapshot) connectionSeries(r socket) string {
	owner := s.attributedTo(r, s.listeners())[0]
	state := strings.ReplaceAll(strings.ToLower(r.State), "_", "-")
	if state == "close" {
		state = "closed"
	}
	return seriesName(connectionMeasurement, map[string]string{
		"protocol": protocolOf(r.Netid, r.Local.Addr().Is4()), "state": state,
		"src": r.Local.Addr().Unmap().String(), "src_port": strconv.Itoa(int(r.Local.Port())),
		"dest": r.Remote.Addr().Unmap().String(), "dest_port": strconv.Itoa(int(r.Remote.Port())),
		"process_name": owner.name, "user": owner.user,
	})
}
