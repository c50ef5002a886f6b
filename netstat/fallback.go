package netstat

import (
	"errors"
	"syscall"
	"time"
)

// retryInterval is the time after which a scanner tries again what was refused: a kernel module may have been loaded, or a limit
// raised.
const retryInterval = 5 * time.Minute

// fallbacks remembers what a scanner has to do without. Each thing has a key.
type fallbacks struct {
	warn  func(error)      // nil: nobody is told
	now   func() time.Time // a monotonic clock
	said  map[string]bool
	until map[string]time.Time // when to try again what was refused
	due   map[string]bool      // what the scan that runs is to try again
}

func newFallbacks(warn func(error)) *fallbacks {
	return &fallbacks{warn: warn, now: time.Now, said: map[string]bool{}, until: map[string]time.Time{}, due: map[string]bool{}}
}

// begin opens a scan.
func (f *fallbacks) begin() {
	clear(f.due)
	for what, until := range f.until {
		if !f.now().Before(until) {
			f.due[what] = true
		}
	}
}

// say reports the error, the first time.
func (f *fallbacks) say(what string, err error) {
	if f.said[what] {
		return
	}
	f.said[what] = true
	if f.warn != nil {
		f.warn(err)
	}
}

// refuse reports the error, the first time, and sets when to try again.
func (f *fallbacks) refuse(what string, err error) {
	f.say(what, err)
	f.schedule(what, err)
}

// schedule sets when to try again, and reports nothing.
func (f *fallbacks) schedule(what string, err error) {
	wait := retryInterval
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) { // there may be a descriptor in the next scan
		wait = 0
	}
	f.until[what] = f.now().Add(wait)
}

// isDue tells whether the scan that runs is to try again what was refused.
func (f *fallbacks) isDue(what string) bool { return f.due[what] }

// restore notes that what was refused works now. Should it be refused again, that is reported again.
func (f *fallbacks) restore(what string) {
	delete(f.until, what)
	delete(f.said, what)
}

// The keys of what can be refused, and works later.
const (
	fallbackDiag     = "sock_diag"
	fallbackBPF      = "bpf"
	fallbackConnects = "connects"
	fallbackClosed   = "closed"
	fallbackEntering = "netlink in namespaces"
)

// fallbackTransports are the keys of the modules that answer for the transports.
var fallbackTransports = func() (keys [len(transportNames)]string) {
	for transport, name := range transportNames {
		keys[transport] = fallbackDiag + " " + name
	}
	return keys
}()
