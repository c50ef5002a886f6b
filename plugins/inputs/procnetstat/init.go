//go:build linux

package procnetstat

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// The names in the option measurements.
const (
	measureHost       = "host"
	measureProcess    = "process"
	measureListener   = "listener"
	measureCgroup     = "cgroup"
	measureRemote     = "remote"
	measureClient     = "client"
	measureConnection = "connection"
	measureGather     = "gather"
)

var (
	allMeasurements = []string{
		measureHost, measureProcess, measureListener, measureCgroup, measureRemote, measureClient, measureConnection,
		measureGather,
	}
	defaultMeasurements = []string{measureHost, measureProcess, measureListener, measureCgroup, measureGather}
)

// allProtocols are the names in the option protocols.
var allProtocols = func() (names []string) {
	for transport := netstat.TransportTCP; transport <= netstat.TransportUnix; transport++ {
		names = append(names, transport.String())
	}
	return names
}()

// Init fills in the defaults and checks the options.
func (p *ProcNetStat) Init() error {
	p.setDefaults()
	if err := p.initScan(); err != nil {
		return err
	}
	if err := checkNames("details", p.Details, detailNames); err != nil {
		return err
	}
	for _, name := range p.Details {
		if reason := p.emptyDetail(name); reason != "" {
			return fmt.Errorf("details: %q %s", name, reason)
		}
	}
	if err := p.checkIdleAfter(); err != nil {
		return err
	}
	if err := checkList("measurements", p.Measurements, allMeasurements); err != nil {
		return err
	}
	if err := checkList("process_tags", p.ProcessTags, allProcessTags); err != nil {
		return err
	}
	if err := checkNames("connection_tags", p.ConnectionTags, allConnectionTags); err != nil {
		return err
	}
	if p.MaxSeries < 1 {
		return fmt.Errorf("max_series: must be at least 1, got %d", p.MaxSeries)
	}
	for _, prefix := range []struct {
		option    string
		bits, max int
	}{
		{"remote_prefix_v4", p.RemotePrefixV4, 32},
		{"remote_prefix_v6", p.RemotePrefixV6, 128},
		{"client_prefix_v4", p.ClientPrefixV4, 32},
		{"client_prefix_v6", p.ClientPrefixV6, 128},
	} {
		if prefix.bits < 0 || prefix.bits > prefix.max {
			return fmt.Errorf("%s: must be from 0 to %d, got %d", prefix.option, prefix.max, prefix.bits)
		}
	}
	var err error
	if p.filters, err = p.newFilters(); err != nil {
		return err
	}
	if p.filters.owner.active && p.scan.OwnerMethod == netstat.OwnersOff {
		return errors.New(`process_include, process_exclude, user_include, user_exclude: ` +
			`cannot be used with owners = "none"; remove them or change owners`)
	}
	if !slices.Contains(p.Measurements, measureHost) {
		p.scan.TCPFilter = p.filters.socket.addresses // no selected measurement needs the sockets that it excludes
	}
	if slices.Equal(p.Measurements, []string{measureHost}) {
		p.scan.OwnerMethod = netstat.OwnersOff // the host measurement does not use owners
	}
	for _, name := range p.Measurements {
		if reason := p.emptyReason(name); reason != "" {
			return fmt.Errorf("measurements: %q %s", name, reason)
		}
	}
	return nil
}

func (p *ProcNetStat) setDefaults() {
	if p.Protocols == nil {
		p.Protocols = []string{netstat.TransportTCP.String(), netstat.TransportUDP.String()}
	}
	if p.Namespaces == nil {
		p.Namespaces = []string{netstat.NamespaceSelf}
	}
	if p.Source == "" {
		p.Source = netstat.SourceAuto.String()
	}
	if p.Owners == "" {
		p.Owners = netstat.OwnersAuto.String()
	}
	if p.ClosedConnections == "" {
		p.ClosedConnections = netstat.ClosedAuto.String()
	}
	if p.Details == nil {
		p.Details = slices.DeleteFunc(slices.Clone(defaultDetails), func(name string) bool { return p.emptyDetail(name) != "" })
	}
	if p.ProcessTags == nil {
		p.ProcessTags = []string{tagProcessName, tagUser}
	}
	if p.ConnectionTags == nil {
		p.ConnectionTags = slices.Clone(defaultConnectionTags)
	}
	if p.Measurements == nil {
		p.Measurements = slices.DeleteFunc(slices.Clone(defaultMeasurements), func(name string) bool {
			return p.emptyReason(name) != ""
		})
	}
}

// emptyReason returns why the other options leave the measurement without content, or an empty string.
func (p *ProcNetStat) emptyReason(measurement string) string {
	withoutOwners, withoutNetlink := p.Owners == netstat.OwnersOff.String(), p.Source == netstat.SourceProcfs.String()
	switch {
	case measurement == measureProcess && withoutOwners:
		return `has no content with owners = "none"`
	case measurement == measureCgroup && withoutOwners && withoutNetlink:
		return `has no content with owners = "none" and source = "procfs"`
	}
	for _, m := range schema {
		if m.option == measurement && !slices.ContainsFunc(m.protocols, p.reads) && m.protocols != nil {
			return fmt.Sprintf("has no content without %s in protocols", anyOf(m.protocols))
		}
	}
	return ""
}

func (p *ProcNetStat) reads(transport netstat.Transport) bool {
	return slices.Contains(p.Protocols, transport.String())
}

// anyOf returns a text like: "tcp", "udp" or "unix".
func anyOf(transports []netstat.Transport) string {
	var names []string
	for _, transport := range transports {
		names = append(names, strconv.Quote(transport.String()))
	}
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// emptyDetail returns why the other options leave the set of details without content, or an empty string.
func (p *ProcNetStat) emptyDetail(name string) string {
	switch {
	case !p.reads(netstat.TransportTCP):
		return `has no content without "tcp" in protocols`
	case p.Source == netstat.SourceProcfs.String():
		return `has no content with source = "procfs"`
	case name == detailNameLifecycle && p.ClosedConnections == netstat.ClosedOff.String():
		return `has no content with closed_connections = "off"`
	}
	return ""
}

// checkIdleAfter checks the option idle_after. The kernel reports how long a connection is idle in 32 bits of milliseconds.
func (p *ProcNetStat) checkIdleAfter() error {
	const most = 49 * 24 * time.Hour
	switch idleAfter := time.Duration(p.IdleAfter); {
	case idleAfter < time.Millisecond || idleAfter > most:
		return fmt.Errorf("idle_after: must be from 1ms to 1176h (49 days), got %v", idleAfter)
	case idleAfter != defaultIdleAfter && !slices.Contains(p.Details, detailNameStalls):
		return errors.New(`idle_after: has no effect without "stalls" in details`)
	}
	return nil
}

func (p *ProcNetStat) initScan() error {
	p.scan = netstat.ScannerConfig{
		ProcRoot:   procRoot(),
		Namespaces: p.Namespaces,
		TCPInfo:    detailOf(p.Details)&detailsOfTCPInfo != 0,
		UnixPaths:  slices.Contains(p.Measurements, measureConnection) || slices.Contains(p.Measurements, measureListener),
		Limits:     slices.Contains(p.Measurements, measureHost) && !p.FamilyTag,
		Warn:       func(err error) { p.Log.Warn(capitalized(err.Error())) },
	}
	if err := p.scan.Source.UnmarshalText([]byte(p.Source)); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if err := p.scan.OwnerMethod.UnmarshalText([]byte(p.Owners)); err != nil {
		return fmt.Errorf("owners: %w", err)
	}
	if len(p.Namespaces) == 0 {
		return errors.New("namespaces: must contain at least one of self, host, all, a name in /run/netns, a pid")
	}
	for i, name := range p.Namespaces {
		if err := netstat.CheckNamespace(name); err != nil {
			return fmt.Errorf("namespaces: %w", err)
		}
		if slices.Contains(p.Namespaces[:i], name) {
			return fmt.Errorf("namespaces: duplicate %q", name)
		}
	}
	if err := checkList("protocols", p.Protocols, allProtocols); err != nil {
		return err
	}
	p.protocols = protocolSet{}
	for _, name := range p.Protocols {
		var transport netstat.Transport
		if err := transport.UnmarshalText([]byte(name)); err != nil {
			return fmt.Errorf("protocols: %w", err)
		}
		p.protocols[transport] = true
		p.scan.Transports = append(p.scan.Transports, transport)
	}
	return p.initClosed()
}

// initClosed checks the option closed_connections. The event of a closed connection carries its final counters; their increase is
// known only if the counters were read before.
func (p *ProcNetStat) initClosed() error {
	if err := p.scan.Closed.UnmarshalText([]byte(p.ClosedConnections)); err != nil {
		return fmt.Errorf("closed_connections: %w", err)
	}
	var missing string
	switch {
	case !p.protocols[netstat.TransportTCP]:
		missing = `"tcp" in protocols`
	case p.scan.Source == netstat.SourceProcfs:
		missing = `netlink, which source = "procfs" disables`
	case !slices.ContainsFunc(schema, func(m *measurementSchema) bool { return !m.noGroup && slices.Contains(p.Measurements, m.option) }):
		missing = "a measurement other than connection and gather"
	case len(p.Details) == 0:
		missing = `"rtt", "traffic", "lifecycle", "connects" or "stalls" in details`
	default:
		return nil
	}
	if p.scan.Closed == netstat.ClosedRequired {
		return fmt.Errorf(`closed_connections: "on" requires %s`, missing)
	}
	p.scan.Closed = netstat.ClosedOff
	return nil
}

// capitalized returns an error text as a log message: see docs/developers/LOGGING.md of Telegraf.
func capitalized(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// procRoot returns the proc file system that Telegraf's other inputs read.
func procRoot() string {
	if root := os.Getenv("HOST_PROC"); root != "" {
		return root
	}
	return "/proc"
}

// checkProcRoot returns an error if the directory cannot be read, or is neither a proc file system nor a copy of one. A copy may
// lack tables. An empty directory is a mount point where nothing is mounted.
func checkProcRoot(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(entries, isOfProc) {
		return fmt.Errorf("%s is not a proc file system: it has none of net, self, version and processes", root)
	}
	return nil
}

func isOfProc(entry os.DirEntry) bool {
	_, err := strconv.ParseUint(entry.Name(), 10, 31)
	return err == nil || slices.Contains([]string{"net", "self", "version"}, entry.Name())
}

// checkList checks an option that is a list of names and must not be empty.
func checkList(option string, given, allowed []string) error {
	if len(given) == 0 {
		return fmt.Errorf("%s: must contain at least one of %s", option, strings.Join(allowed, ", "))
	}
	return checkNames(option, given, allowed)
}

// checkNames checks an option that is a list of names and may be empty.
func checkNames(option string, given, allowed []string) error {
	for i, name := range given {
		if !slices.Contains(allowed, name) {
			return fmt.Errorf("%s: %q is not one of %s", option, name, strings.Join(allowed, ", "))
		}
		if slices.Contains(given[:i], name) {
			return fmt.Errorf("%s: duplicate %q", option, name)
		}
	}
	return nil
}
