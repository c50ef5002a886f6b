//go:build linux

package procnetstat

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/procnetstat/procnetstat/netstat"
)

// allConnectionTags are the names in the option connection_tags. A name that is not selected is emitted as a field (if sockets share
// all tags: see identityTags), except the last six, which are omitted.
var allConnectionTags = []string{
	"protocol", "state", "src", "src_port", "dest", "dest_port", "inode", "name", tagPID,
	tagProcessName, tagUser, tagSystemdUnit, tagContainerID, tagPodUID, tagCgroup,
}

// defaultConnectionTags distinguish IP sockets: points with identical tags and time overwrite each other in InfluxDB.
var defaultConnectionTags = []string{tagProcessName, "protocol", "src", "src_port", "dest", "dest_port"}

var connectionSchema = measurementSchema{
	name: "procnetstat_connection", option: measureConnection, about: "A point for each socket; the fields up to pid are tags if `connection_tags` names them", noGroup: true,
	tags: slices.Concat([]tag{
		{tagProcessName, "Command name of the first process that holds it; this and all below as chosen in `connection_tags`"},
		{tagUser, "Effective user of that process"},
	}, workloadTags, []tag{{tagCgroup, "Path of the cgroup"}}),
	fields: []field{
		{name: "protocol", about: "`tcp4`, `tcp6`, `udp4`, …, `unix`"},
		{name: "state", about: "As in `procstat_socket`: `established`, `syn-sent`, …"},
		{name: "src", about: "Local address; not of unix sockets, as those below"},
		{name: "src_port", about: "Local port"},
		{name: "dest", about: "Remote address"},
		{name: "dest_port", about: "Remote port"},
		{name: "inode", about: "Inode number of the socket; absent if no process holds it"},
		{name: "name", about: "Of a unix socket that has one; an abstract one begins with @"},
		{name: tagPID, about: "First process that holds it"},
		{name: "netns_inode", about: "Inode number of the network namespace"},
		{name: "rx_queue", unit: unitBytes, about: "Receive queue; of a listening socket its accept queue, in connections"},
		{name: "tx_queue", unit: unitBytes, about: "Send queue; of a listening socket the limit of its accept queue, in connections"},
		connectionField("rtt_us", unitMicroseconds, "Smoothed round-trip time"),
		connectionField("cwnd", unitSegments, "Congestion window"),
		connectionField("retrans_segs", unitSegments, "Retransmitted since the connection began"),
		connectionField("lost", unitSegments, "In flight and taken for lost"),
		connectionField("retransmits", "retransmissions", "Of the segment that is being retransmitted"),
		connectionField("bytes_received", unitBytes, "Since the connection began"),
		connectionField("bytes_sent", unitBytes, "Since the connection began"),
	},
}

func connectionField(name, unit, about string) field {
	return field{name: name, unit: unit, needs: "netlink, TCP, `rtt`, `traffic`, `connects` or `stalls` in `details`", about: about}
}

// connectionMeasurement is procnetstat_connection: a point for every socket, with the field names of procstat_socket.
type connectionMeasurement struct {
	tagNames    []string
	owners      *owners
	scope       *scope
	options     seriesOptions
	rows        []connection
	skipped     int // sockets beyond maxSeries in this pass
	lastSkipped int // the same in the last pass
	warned      bool
}

// connection is a copy of a socket and its attribution, kept until it is emitted.
type connection struct {
	socket netstat.Socket
	owner  *owner
	cgroup *cgroupEntry
	scope  *scope
}

func newConnectionMeasurement(tagNames []string, owners *owners, options seriesOptions) *connectionMeasurement {
	return &connectionMeasurement{tagNames: tagNames, owners: owners, options: options}
}

func (m *connectionMeasurement) enter(sc *scope) { m.scope = sc }

func (m *connectionMeasurement) observe(o *observation) {
	if o.Closed {
		return
	}
	if len(m.rows) == m.options.maxSeries {
		m.skipped++
		return
	}
	row := connection{socket: *o.Socket, cgroup: o.cgroup, scope: m.scope}
	if len(o.owners) > 0 {
		row.owner = o.owners[0]
	}
	m.rows = append(m.rows, row)
}

// identityTags tell sockets apart.
var identityTags = []string{"protocol", "src", "src_port", "dest", "dest_port", "inode"}

// emit emits the sockets. Those that share all chosen tags have identityTags too: points with identical tags and time are one point
// in a database. What these tags do not tell apart is omitted.
func (m *connectionMeasurement) emit(out emission) {
	if m.skipped > 0 && !m.warned {
		m.warned = true
		m.options.log.Warnf("Measurement procnetstat_connection has %d sockets, more than max_series = %d: omitting the rest",
			len(m.rows)+m.skipped, m.options.maxSeries)
	}
	points := make([]connectionPoint, 0, len(m.rows))
	sharing := map[string]int{} // number of points by identity
	for i := range m.rows {
		row := &m.rows[i]
		if !out.forScope(row.scope).read[row.socket.Transport] {
			continue
		}
		point := connectionPoint{fields: row.fields(), tags: m.tags(row)}
		if m.options.netNS {
			point.tags[tagNetNS] = row.scope.tag
		}
		point.makeTags(m.tagNames)
		point.setIdentity()
		points = append(points, point)
		sharing[point.identity]++
	}
	emitted := make(map[string]bool, len(points))
	for i := range points {
		point := &points[i]
		if sharing[point.identity] > 1 {
			point.makeTags(identityTags)
			point.setIdentity()
		}
		if emitted[point.identity] {
			m.skipped++
			continue
		}
		emitted[point.identity] = true
		out.gauges(connectionSchema.name, point.fields, point.tags)
	}
	clear(m.rows)
	m.rows, m.skipped, m.lastSkipped = m.rows[:0], 0, m.skipped
}

// connectionPoint is a point of a socket.
type connectionPoint struct {
	fields   map[string]any
	tags     map[string]string
	identity string // by which a database knows the point
}

// makeTags makes tags of the fields with these names.
func (p *connectionPoint) makeTags(names []string) {
	for _, name := range names {
		if value, ok := p.fields[name]; ok {
			delete(p.fields, name)
			p.tags[name] = fmt.Sprint(value)
		}
	}
}

func (p *connectionPoint) setIdentity() {
	var tags []string
	for _, name := range slices.Sorted(maps.Keys(p.tags)) {
		tags = append(tags, name, p.tags[name])
	}
	p.identity = strings.Join(tags, separator)
}

// tags returns the tags that are never fields.
func (m *connectionMeasurement) tags(row *connection) map[string]string {
	tags := map[string]string{}
	for _, name := range m.tagNames {
		switch name {
		case tagProcessName, tagUser:
			tags[name] = unattributed
			if row.owner != nil {
				tags[name] = m.owners.tagValues(row.owner, []string{name})[0]
			}
		case tagSystemdUnit, tagContainerID, tagPodUID, tagCgroup:
			if value := row.cgroup.tag(name); value != "" {
				tags[name] = value
			}
		}
	}
	return tags
}

// fields returns the fields of procstat_socket and more.
func (row *connection) fields() map[string]any {
	s := &row.socket
	fields := map[string]any{
		"state":    connectionStates[stateIndex(s.State)],
		"rx_queue": int64(s.RecvQueue),
		"tx_queue": int64(s.SendQueue),
	}
	if s.Inode != 0 {
		fields["inode"] = int64(s.Inode)
	}
	if s.NetNS != 0 {
		fields["netns_inode"] = int64(s.NetNS)
	}
	if row.owner != nil {
		fields["pid"] = int64(row.owner.process.PID)
	}
	if s.Transport == netstat.TransportUnix {
		fields["protocol"] = s.Transport.String()
		if s.Path != "" {
			fields["name"] = tagValue(s.Path)
		}
		return fields
	}
	fields["protocol"] = s.Transport.String() + map[netstat.Family]string{netstat.FamilyIPv4: "4", netstat.FamilyIPv6: "6"}[s.Family]
	fields["src"], fields["src_port"] = addressValue(s.Local.Addr().Unmap()), int64(s.Local.Port())
	fields["dest"], fields["dest_port"] = addressValue(s.Remote.Addr().Unmap()), int64(s.Remote.Port())
	if s.Has(netstat.FieldAcceptQueue) {
		fields["rx_queue"], fields["tx_queue"] = int64(s.AcceptQueue), int64(s.AcceptQueueLimit)
	}
	if s.State == netstat.TCPListen {
		return fields
	}
	if s.Has(netstat.FieldTCPInfo) {
		if s.TCP.RTT > 0 {
			fields["rtt_us"] = int64(s.TCP.RTT)
		}
		fields["cwnd"] = int64(s.TCP.CWnd)
		fields["retrans_segs"] = int64(s.TCP.RetransSegs)
		fields["lost"] = int64(s.TCP.Lost)
		fields["retransmits"] = int64(s.TCP.Retransmits)
	}
	if s.Has(netstat.FieldTCPBytes) {
		fields["bytes_received"] = int64(s.TCP.BytesReceived)
	}
	if s.Has(netstat.FieldTCPBytesSent) {
		fields["bytes_sent"] = int64(s.TCP.BytesSent)
	}
	return fields
}

// connectionStates names the states as procstat_socket does.
var connectionStates = [...]string{
	netstat.TCPUnknown:     "unknown",
	netstat.TCPEstablished: "established",
	netstat.TCPSynSent:     "syn-sent",
	netstat.TCPSynRecv:     "syn-recv",
	netstat.TCPFinWait1:    "fin-wait1",
	netstat.TCPFinWait2:    "fin-wait2",
	netstat.TCPTimeWait:    "time-wait",
	netstat.TCPClose:       "closed",
	netstat.TCPCloseWait:   "close-wait",
	netstat.TCPLastAck:     "last-ack",
	netstat.TCPListen:      "listen",
	netstat.TCPClosing:     "closing",
}

// folded returns the number of sockets that the last pass omitted.
func (m *connectionMeasurement) folded() int { return m.lastSkipped }
