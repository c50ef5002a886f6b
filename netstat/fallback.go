package netstat

import (
	"errors"
	"syscall"
	"time"
)

// retryInterval is the time after which a scanner retries what was refused: a kernel module may have been loaded, a limit raised.
const retryInterval = 5 * time.Minute

// fallbacks keeps what was refused or is missing, by key, and when to retry it.
type fallbacks struct {
	warn   func(error)      // may be nil
	now    func() time.Time // a monotonic clock
	warned map[string]bool
	until  map[string]time.Time // time of the retry
	due    map[string]bool      // retries of the current scan
}

func newFallbacks(warn func(error)) *fallbacks {
	return &fallbacks{warn: warn, now: time.Now, warned: map[string]bool{}, until: map[string]time.Time{}, due: map[string]bool{}}
}

// begin starts a scan.
func (f *fallbacks) begin() {
	clear(f.due)
	for what, until := range f.until {
		if !f.now().Before(until) {
			f.due[what] = true
		}
	}
}

// warnOnce reports the error unless one was reported for the key.
func (f *fallbacks) warnOnce(what string, err error) {
	if f.warned[what] {
		return
	}
	f.warned[what] = true
	if f.warn != nil {
		f.warn(err)
	}
}

// refuse reports the error once, and schedules a retry.
func (f *fallbacks) refuse(what string, err error) {
	f.warnOnce(what, err)
	f.schedule(what, err)
}

// schedule sets the time of the retry.
func (f *fallbacks) schedule(what string, err error) {
	wait := retryInterval
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) { // the next scan may find a free descriptor
		wait = 0
	}
	f.until[what] = f.now().Add(wait)
}

// isDue reports whether the current scan retries what was refused.
func (f *fallbacks) isDue(what string) bool { return f.due[what] }

// restore records that what was refused works. A later refusal is reported again.
func (f *fallbacks) restore(what string) {
	delete(f.until, what)
	delete(f.warned, what)
}

// Keys of what can be refused and retried.
const (
	fallbackDiag     = "sock_diag"
	fallbackBPF      = "bpf"
	fallbackConnects = "connects"
	fallbackClosed   = "closed"
	fallbackEntering = "netlink in namespaces"
)

// fallbackTransports are the keys of the kernel modules of the transports.
var fallbackTransports = func() (keys [len(transportNames)]string) {
	for transport, name := range transportNames {
		keys[transport] = fallbackDiag + " " + name
	}
	return keys
}()
