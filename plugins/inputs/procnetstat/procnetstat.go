//go:build linux

// Package procnetstat is a Telegraf input plugin that tells which process and which listener the sockets of this host
// belong to, and how they are doing.
package procnetstat

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/plugins/inputs"

	"github.com/procnetstat/procnetstat/netstat"
)

//go:embed sample.conf
var sampleConfig string

// ProcNetStat is the plugin.
type ProcNetStat struct {
	Measurements []string        `toml:"measurements"`
	Protocols    []string        `toml:"protocols"`
	Source       string          `toml:"source"`
	Owners       string          `toml:"owners"`
	ProcessTags  []string        `toml:"process_tags"`
	FamilyTag    bool            `toml:"family_tag"`
	MaxSeries    int             `toml:"max_series"`
	Log          telegraf.Logger `toml:"-"`

	scan         netstat.ScannerConfig
	protocols    protocolSet
	measurements []measurement
	report       bool // procnetstat_gather

	// mu is held by a gather, so that Stop closes nothing under it.
	mu      sync.Mutex
	cancel  context.CancelFunc
	ctx     context.Context //nolint:containedctx // Gather is given none
	scanner *netstat.Scanner
	pass    pass
	denied  sync.Once
}

// measurement collects one measurement in the course of a pass over the sockets.
type measurement interface {
	// observe takes one socket.
	observe(*observation)
	// emit emits the metrics of the pass and makes ready for the next.
	emit(emission)
}

// emission is where the metrics of a pass go.
type emission struct {
	acc  telegraf.Accumulator
	now  time.Time
	read protocolSet // the protocols of which all sockets could be read
}

// gauges emits fields that tell how things stand. A metric without fields is none.
func (e emission) gauges(measurement string, fields map[string]any, tags map[string]string) {
	if len(fields) > 0 {
		e.acc.AddGauge(measurement, fields, tags, e.now)
	}
}

// counters emits fields that only grow.
func (e emission) counters(measurement string, fields map[string]any, tags map[string]string) {
	e.acc.AddCounter(measurement, fields, tags, e.now)
}

// The names in the option measurements.
const (
	measureHost     = "host"
	measureProcess  = "process"
	measureListener = "listener"
	measureGather   = "gather"
)

var allMeasurements = []string{measureHost, measureProcess, measureListener, measureGather}

// allProtocols are the names in the option protocols.
var allProtocols = func() (names []string) {
	for transport := netstat.TransportTCP; transport <= netstat.TransportUnix; transport++ {
		names = append(names, transport.String())
	}
	return names
}()

const defaultMaxSeries = 500

func newPlugin() *ProcNetStat { return &ProcNetStat{MaxSeries: defaultMaxSeries} }

// SampleConfig returns the plugin's configuration with all defaults.
func (*ProcNetStat) SampleConfig() string { return sampleConfig }

// Init fills in the defaults and checks the options.
func (p *ProcNetStat) Init() error {
	p.setDefaults()
	if err := p.initScan(); err != nil {
		return err
	}
	if err := checkList("measurements", p.Measurements, allMeasurements); err != nil {
		return err
	}
	if err := checkList("process_tags", p.ProcessTags, allProcessTags); err != nil {
		return err
	}
	if p.MaxSeries < 1 {
		return fmt.Errorf("max_series: %d given, 1 or more allowed", p.MaxSeries)
	}
	for _, name := range p.Measurements {
		if why := p.lacks(name); why != "" {
			return fmt.Errorf("measurements: %q given, which %s", name, why)
		}
	}
	return nil
}

func (p *ProcNetStat) setDefaults() {
	if p.Protocols == nil {
		p.Protocols = []string{netstat.TransportTCP.String(), netstat.TransportUDP.String()}
	}
	if p.Source == "" {
		p.Source = netstat.SourceAuto.String()
	}
	if p.Owners == "" {
		p.Owners = netstat.OwnersAuto.String()
	}
	if p.ProcessTags == nil {
		p.ProcessTags = []string{tagProcessName, tagUser}
	}
	if p.Measurements == nil {
		p.Measurements = slices.DeleteFunc(slices.Clone(allMeasurements), func(name string) bool {
			return p.lacks(name) != ""
		})
	}
}

// lacks says which other option keeps the measurement from having any content; empty if none does.
func (p *ProcNetStat) lacks(measurement string) string {
	switch {
	case measurement == measureProcess && p.Owners == netstat.OwnersNone.String():
		return `has no content with owners = "none"`
	case measurement == measureListener && !slices.Contains(p.Protocols, netstat.TransportTCP.String()):
		return `has no content without "tcp" in protocols`
	}
	return ""
}

func (p *ProcNetStat) initScan() error {
	p.scan = netstat.ScannerConfig{ProcRoot: procRoot(), Warn: func(err error) { p.Log.Warn(err) }}
	var err error
	if p.scan.Source, err = netstat.ParseSource(p.Source); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if p.scan.Owners, err = netstat.ParseOwnerMethod(p.Owners); err != nil {
		return fmt.Errorf("owners: %w", err)
	}
	if err := checkList("protocols", p.Protocols, allProtocols); err != nil {
		return err
	}
	p.protocols = protocolSet{}
	for _, name := range p.Protocols {
		transport, err := netstat.ParseTransport(name)
		if err != nil {
			return fmt.Errorf("protocols: %w", err)
		}
		p.protocols[transport] = true
		p.scan.Transports = append(p.scan.Transports, transport)
	}
	return nil
}

// procRoot is the proc file system that Telegraf's other inputs read.
func procRoot() string {
	if root := os.Getenv("HOST_PROC"); root != "" {
		return root
	}
	return "/proc"
}

// checkList checks an option that is a list of names.
func checkList(option string, given, allowed []string) error {
	if len(given) == 0 {
		return fmt.Errorf("%s: an empty list given, at least one of %s is needed", option, strings.Join(allowed, ", "))
	}
	for i, name := range given {
		if !slices.Contains(allowed, name) {
			return fmt.Errorf("%s: %q is not one of %s", option, name, strings.Join(allowed, ", "))
		}
		if slices.Contains(given[:i], name) {
			return fmt.Errorf("%s: %q given twice", option, name)
		}
	}
	return nil
}

func (p *ProcNetStat) makeMeasurements() {
	p.measurements, p.report = nil, false
	limit := seriesLimit{most: p.MaxSeries, log: p.Log}
	withOwners := p.scan.Owners != netstat.OwnersNone
	for _, name := range p.Measurements {
		switch name {
		case measureHost:
			p.measurements = append(p.measurements, &hostMeasurement{byFamily: p.FamilyTag})
		case measureProcess:
			p.measurements = append(p.measurements, newProcessMeasurement(p.ProcessTags, limit))
		case measureListener:
			p.measurements = append(p.measurements, newListenerMeasurement(withOwners, limit))
		case measureGather:
			p.report = true
		}
	}
}

// Start opens what the gathers read from.
func (p *ProcNetStat) Start(telegraf.Accumulator) error {
	if _, err := os.ReadDir(p.scan.ProcRoot); err != nil {
		return fmt.Errorf("the proc file system (HOST_PROC): %w", err)
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

// Stop ends a gather that is under way, and closes what Start opened.
func (p *ProcNetStat) Stop() {
	if p.cancel == nil {
		return // never started
	}
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.scanner.Close(); err != nil {
		p.Log.Warnf("closing: %v", err)
	}
}

// Gather reads the sockets once and adds every measurement.
func (p *ProcNetStat) Gather(acc telegraf.Accumulator) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := emission{acc: acc, now: time.Now(), read: maps.Clone(p.protocols)}
	p.pass.begin()
	for socket, err := range p.scanner.Sockets(p.ctx) {
		if p.ctx.Err() != nil {
			return nil // stopped: what was seen of the sockets is a part only
		}
		if err != nil {
			acc.AddError(err)
			if failed := (*netstat.TableError)(nil); errors.As(err, &failed) {
				delete(to.read, failed.Transport)
			}
			continue
		}
		observed := p.pass.observe(socket)
		for _, m := range p.measurements {
			m.observe(observed)
		}
	}
	duration := time.Since(to.now)
	for _, m := range p.measurements {
		m.emit(to)
	}
	stats := p.scanner.Stats()
	if p.report {
		report := gatherReport{duration, stats, p.pass.unattributed, p.folded()}
		report.emit(to)
	}
	if stats.Denied > 0 {
		p.denied.Do(func() {
			p.Log.Warnf("processes whose descriptors may not be read: %d; their sockets count as %q. To read them takes "+
				"CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, and no security module that forbids it", stats.Denied, unattributed)
		})
	}
	return nil
}

// folded returns the number of series that were summed up in others in this gather.
func (p *ProcNetStat) folded() int {
	n := 0
	for _, m := range p.measurements {
		if f, ok := m.(interface{ folded() int }); ok {
			n += f.folded()
		}
	}
	return n
}

func init() {
	inputs.Add("procnetstat", func() telegraf.Input { return newPlugin() })
}
