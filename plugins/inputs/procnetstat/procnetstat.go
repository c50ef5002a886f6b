//go:build linux

package procnetstat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/influxdata/telegraf"

	"github.com/procnetstat/procnetstat/netstat"
)

// gatherState is the configuration that Init derives from the options, and the state of the gathers.
type gatherState struct {
	scan      netstat.ScannerConfig
	protocols protocolSet
	filters   filters

	// mu is held by Gather and by Stop while it closes the scanner.
	mu           sync.Mutex
	cancel       context.CancelFunc
	ctx          context.Context //nolint:containedctx // Gather has no context parameter
	scanner      *netstat.Scanner
	scopes       scopes
	kernelFields netstat.Field // that every connection had since the start: a kernel lacks the others for all
	pass         *pass
	host         measurement        // nil: not selected; ignores the filters
	measurements []measurement      // all other socket measurements
	gather       *gatherMeasurement // nil: not selected
	warnDenied   sync.Once
}

// measurement collects one measurement during a pass over the sockets.
type measurement interface {
	// enter starts a scope: the sockets that follow are in it.
	enter(*scope)
	// observe adds one socket.
	observe(*observation)
	// emit emits the metrics of the pass and resets the measurement for the next one.
	emit(emission)
}

// emission is the destination of the metrics of a pass, and what limits their fields.
type emission struct {
	acc          telegraf.Accumulator
	now          time.Time
	read         protocolSet   // protocols whose sockets were all read
	tcpFields    netstat.Field // the fields that every TCP connection has
	closedEvents bool          // the kernel reports closed connections
	connects     bool          // attempts to connect are recorded
	scopes       *scopes
}

// forScope returns the emission for the metrics of one scope; nil: of all scopes.
func (e emission) forScope(sc *scope) emission {
	if sc == nil {
		common := e.scopes.common()
		sc = &common
	}
	e.read, e.tcpFields, e.closedEvents, e.connects = sc.read, sc.tcpFields, sc.closedEvents, sc.connects
	return e
}

// gauges emits a gauge metric, unless it has no fields.
func (e emission) gauges(measurement string, fields map[string]any, tags map[string]string) {
	if len(fields) > 0 {
		e.acc.AddGauge(measurement, fields, tags, e.now)
	}
}

// makeMeasurements creates the pass and the measurements, with all counters at zero.
func (p *ProcNetStat) makeMeasurements() {
	cgroups := newCgroups(p.needsCgroups(), p.scan.ProcRoot, p.Log)
	details := detailOf(p.Details)
	p.pass = newPass(p.filters, details, newUserNames(p.Log), cgroups)
	countNewNamespaces := slices.Contains(p.Namespaces, netstat.NamespaceAll)
	p.pass.flows.countNewNamespaces = countNewNamespaces
	p.pass.flows.idleAfter = uint32(time.Duration(p.IdleAfter).Milliseconds())
	p.scopes, p.kernelFields = scopes{protocols: p.protocols}, ^netstat.Field(0)
	p.host, p.measurements, p.gather = nil, nil, nil
	options := seriesOptions{details: details, maxSeries: p.MaxSeries, netNS: p.readsSeveralNetNS(), log: p.Log}
	withOwners := p.scan.OwnerMethod != netstat.OwnersOff
	var m measurement
	for _, name := range p.Measurements {
		switch name {
		case measureHost:
			p.host = newHostMeasurement(p.FamilyTag, countNewNamespaces, options)
			continue
		case measureGather:
			p.gather = newGatherMeasurement()
			continue
		case measureProcess:
			m = newProcessMeasurement(p.ProcessTags, p.pass.owners, options)
		case measureListener:
			m = newListenerMeasurement(withOwners, options)
		case measureCgroup:
			m = newCgroupMeasurement(options)
		case measureRemote:
			m = newRemoteMeasurement(withOwners, p.RemotePrefixV4, p.RemotePrefixV6, p.pass.processAt, options)
		case measureClient:
			m = newClientMeasurement(withOwners, p.ClientPrefixV4, p.ClientPrefixV6, options)
		case measureConnection:
			m = newConnectionMeasurement(p.ConnectionTags, p.pass.owners, options)
		}
		p.measurements = append(p.measurements, m)
	}
	p.pass.attributes = withOwners || len(p.measurements) > 0
	p.pass.countsLocalPorts = p.host != nil && !p.FamilyTag
}

// needsCgroups reports whether any option needs the cgroups of sockets.
func (p *ProcNetStat) needsCgroups() bool {
	isCgroupTag := func(tag string) bool { return slices.Contains(cgroupTags, tag) }
	return slices.Contains(p.Measurements, measureCgroup) || p.filters.socket.cgroups != nil ||
		slices.Contains(p.Measurements, measureProcess) && slices.ContainsFunc(p.ProcessTags, isCgroupTag) ||
		slices.Contains(p.Measurements, measureConnection) && slices.ContainsFunc(p.ConnectionTags, isCgroupTag)
}

// Start opens the scanner.
func (p *ProcNetStat) Start(telegraf.Accumulator) error {
	if err := checkProcRoot(p.scan.ProcRoot); err != nil {
		return fmt.Errorf("proc file system (HOST_PROC): %w", err)
	}
	scanner, err := netstat.NewScanner(p.scan)
	if err != nil {
		return err
	}
	p.scanner = scanner
	p.makeMeasurements()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return nil
}

// Stop cancels a running gather and closes the scanner.
func (p *ProcNetStat) Stop() {
	if p.cancel == nil {
		return // never started
	}
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.scanner.Close(); err != nil {
		p.Log.Warnf("Closing the socket scanner: %v", err)
	}
}

// Gather reads the sockets once and emits every measurement.
func (p *ProcNetStat) Gather(acc telegraf.Accumulator) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := emission{acc: acc, now: time.Now(), scopes: &p.scopes}
	p.scopes.begin()
	p.pass.begin(out.now, p.scanner.Stats().Initiators)
	for socket, err := range p.scanner.Sockets(p.ctx) {
		if p.ctx.Err() != nil {
			return nil // stopped: the pass is incomplete
		}
		if err != nil {
			acc.AddError(err)
			if failed := (*netstat.TableError)(nil); errors.As(err, &failed) {
				delete(p.scopes.get(failed.Namespace).read, failed.Transport)
			}
			continue
		}
		if p.pass.mustSettle(socket) {
			p.pass.settle(p.count)
		}
		if p.pass.scope == nil || p.pass.scope.namespace != socket.Namespace {
			p.enter(p.scopes.get(socket.Namespace))
		}
		observed := p.pass.observe(socket)
		if p.host != nil {
			p.host.observe(observed)
		}
		p.count(observed)
	}
	p.pass.settle(p.count)
	duration := time.Since(out.now)
	stats := p.scanner.Stats()
	p.scopes.end(p.scanner.Namespaces())
	for _, sc := range p.scopes.all {
		sc.closedEvents = sc.namespace.ClosedEvents()
		sc.connects = sc.closedEvents && stats.Initiators
		for _, transport := range p.scan.Transports {
			sc.sources[transport] = sc.namespace.SourceOf(transport)
		}
		if !p.scan.TCPInfo || sc.sources[netstat.TransportTCP] != netstat.SourceNetlink {
			sc.tcpFields = 0
			continue
		}
		p.kernelFields &= sc.tcpFields
	}
	for _, sc := range p.scopes.all { // those without connections have all fields
		sc.tcpFields &= p.kernelFields
	}
	p.pass.end(&p.scopes)
	if p.host != nil {
		p.host.emit(out)
	}
	for _, m := range p.measurements {
		m.emit(out)
	}
	if p.gather != nil {
		p.gather.emit(out, gatherReport{
			duration, stats, p.pass.unattributed, p.pass.attemptsLost + stats.AttemptsLost, p.folded(), p.scopes.anyClosedEvents(),
		})
	}
	if stats.Denied > 0 {
		p.warnDenied.Do(func() {
			p.Log.Warnf("Cannot read the descriptors of %d processes; their sockets are reported as %q. Attributing them requires "+
				"CAP_BPF and CAP_PERFMON, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; a security module can deny it too",
				stats.Denied, unattributed)
		})
	}
	return nil
}

// count adds a socket to all measurements but that of the host, if the filters want it.
func (p *ProcNetStat) count(o *observation) {
	if !o.wanted {
		return
	}
	for _, m := range p.measurements {
		m.observe(o)
	}
}

// readsSeveralNetNS reports whether more than one network namespace can be read, which requires the tag netns.
func (p *ProcNetStat) readsSeveralNetNS() bool {
	return len(p.Namespaces) > 1 || slices.Contains(p.Namespaces, netstat.NamespaceAll)
}

// enter starts a scope.
func (p *ProcNetStat) enter(sc *scope) {
	sc.closedEvents = sc.namespace.ClosedEvents()
	sc.connects = sc.closedEvents && p.pass.connectsSeen
	p.pass.enter(sc)
	if p.host != nil {
		p.host.enter(sc)
	}
	for _, m := range p.measurements {
		m.enter(sc)
	}
}

// folded returns the number of series that this gather summed in series tagged "other", plus the sockets that it omitted.
func (p *ProcNetStat) folded() int {
	n := 0
	for _, m := range p.measurements {
		if f, ok := m.(interface{ folded() int }); ok {
			n += f.folded()
		}
	}
	return n
}

// withoutMissing returns the error without those of missing files: their fields are absent.
func withoutMissing(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var rest []error
		for _, err := range joined.Unwrap() {
			rest = append(rest, withoutMissing(err))
		}
		return errors.Join(rest...)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
