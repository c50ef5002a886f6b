package netstat

import (
	"errors"
	"syscall"
	"time"
)

// retryInterval is the time between two attempts at a feature that was unavailable: a kernel module may have been loaded, or a
// limit raised.
const retryInterval = 5 * time.Minute

// The features of a scanner that can be unavailable and become available later.
const (
	fallbackDiag     = "sock_diag"
	fallbackBPF      = "bpf"
	fallbackConnects = "connects"
	fallbackClosed   = "closed"
	fallbackEnter    = "netlink in namespaces"
)

// fallbackTransports are the features that depend on the sock_diag modules of the transports.
var fallbackTransports = func() (keys [len(transportNames)]string) {
	for transport, name := range transportNames {
		keys[transport] = fallbackDiag + " " + name
	}
	return keys
}()

// fallbacks records the features that are unavailable to a scanner, warns once of each, and schedules retries.
type fallbacks struct {
	warn    func(error)      // nil: no warnings
	now     func() time.Time // a monotonic clock
	warned  map[string]bool
	retryAt map[string]time.Time
	dueNow  map[string]bool // features that the current scan retries
}

func newFallbacks(warn func(error)) *fallbacks {
	return &fallbacks{
		warn: warn, now: time.Now, warned: map[string]bool{}, retryAt: map[string]time.Time{}, dueNow: map[string]bool{},
	}
}

// startScan determines which features the scan retries. The result does not change until the next scan.
func (f *fallbacks) startScan() {
	clear(f.dueNow)
	for feature, at := range f.retryAt {
		if !f.now().Before(at) {
			f.dueNow[feature] = true
		}
	}
}

// warnOnce reports the error unless the feature was reported before.
func (f *fallbacks) warnOnce(feature string, err error) {
	if f.warned[feature] {
		return
	}
	f.warned[feature] = true
	if f.warn != nil {
		f.warn(err)
	}
}

// markUnavailable warns once and schedules a retry.
func (f *fallbacks) markUnavailable(feature string, err error) {
	f.warnOnce(feature, err)
	f.scheduleRetry(feature, err)
}

// scheduleRetry schedules a retry without a warning.
func (f *fallbacks) scheduleRetry(feature string, err error) {
	wait := retryInterval
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) { // the next scan may get a descriptor
		wait = 0
	}
	f.retryAt[feature] = f.now().Add(wait)
}

// retryDue reports whether the current scan retries the feature.
func (f *fallbacks) retryDue(feature string) bool { return f.dueNow[feature] }

// markAvailable cancels the retry. If the feature becomes unavailable again, there is a new warning.
func (f *fallbacks) markAvailable(feature string) {
	delete(f.retryAt, feature)
	delete(f.warned, feature)
}
