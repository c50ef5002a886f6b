package sockdiag

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrStopped says that the reader of a dump wanted no more of it.
	ErrStopped = errors.New("stopped")
	// ErrNoAnswer says that the kernel is silent.
	ErrNoAnswer = errors.New("no answer from the kernel")
)

// Exchange identifies a request and the answers to it: the port ID of the socket that asked, and the request's sequence number.
type Exchange struct{ Port, Sequence uint32 }

// EachAnswer calls socket with the payload of each socket in what was received at once. Answers to another request are skipped.
// done says that the dump has ended, interrupted that the table changed while it was dumped (NLM_F_DUMP_INTR): sockets may be
// missing or doubled.
func EachAnswer(b []byte, to Exchange, socket func(payload []byte) bool) (done, interrupted bool, err error) {
	for len(b) > 0 {
		var m message
		if m, b, err = nextMessage(b); err != nil {
			return false, interrupted, err
		}
		if m.exchange() != to {
			continue
		}
		interrupted = interrupted || m.flags()&flagDumpIntr != 0
		switch m.kind() {
		case typeDone, typeError:
			number, err := m.errno()
			if err == nil && number != 0 {
				err = notSupported(syscall.Errno(number))
			}
			return true, interrupted, err
		case typeByFamily, typeTCP:
			if !socket(m.payload()) {
				return false, interrupted, ErrStopped
			}
		}
	}
	return false, interrupted, nil
}

// Handler takes what a [Subscription] receives. A subscription calls it from one goroutine at a time.
type Handler interface {
	// Destroyed takes a socket that the kernel has destroyed. The message is valid until Destroyed returns.
	Destroyed(m InetMessage)
	// Failed takes the error of what could not be received or decoded.
	Failed(err error)
}

// unsolicited is the exchange of what the kernel sends to a multicast group, which nobody has asked for.
var unsolicited = Exchange{}

// eachEvent calls the handler with each socket in what was received from a multicast group at once.
func eachEvent(b []byte, handler Handler) {
	for len(b) > 0 {
		m, rest, err := nextMessage(b)
		if err != nil {
			handler.Failed(err)
			return
		}
		b = rest
		if m.kind() != typeByFamily || m.exchange() != unsolicited {
			continue
		}
		if socket, err := ParseInet(m.payload()); err != nil {
			handler.Failed(err)
		} else {
			handler.Destroyed(socket)
		}
	}
}

// notSupported marks the errors by which a kernel says that it cannot, or that we may not: ENOENT without the module for
// the protocol (sock_diag_rcv_msg, net/core/sock_diag.c), EPROTONOSUPPORT without sock_diag.
func notSupported(err error) error {
	for _, errno := range []syscall.Errno{
		syscall.ENOENT, syscall.EOPNOTSUPP, syscall.EPROTONOSUPPORT, syscall.EAFNOSUPPORT, syscall.EPERM, syscall.EACCES,
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
	}
	return err
}
