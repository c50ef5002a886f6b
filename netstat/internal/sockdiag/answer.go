package sockdiag

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrStopped means that the caller ended a dump.
	ErrStopped = errors.New("stopped")
	// ErrNoAnswer means that the kernel did not answer in time.
	ErrNoAnswer = errors.New("no answer from the kernel")
)

// Exchange identifies a request and its answers: the port ID of the requesting socket, and the sequence number of the request.
type Exchange struct{ Port, Sequence uint32 }

// EachAnswer calls socket with the payload of each socket in a received datagram. It skips answers to other requests. done
// means that the dump has ended, interrupted that the table changed during the dump (NLM_F_DUMP_INTR): sockets may be missing
// or repeated.
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

// Handler receives the events of a [Subscription], which calls it from one goroutine at a time.
type Handler interface {
	// Destroyed is called for a destroyed socket. The message is valid until Destroyed returns.
	Destroyed(m InetMessage)
	// Failed is called for a message that could not be received or decoded.
	Failed(err error)
}

// unsolicited is the exchange of messages to a multicast group.
var unsolicited = Exchange{}

// eachEvent calls the handler for each socket in a datagram received from a multicast group.
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

// notSupported adds errors.ErrUnsupported to the errors of a missing kernel feature or privilege: for example ENOENT without the
// module for the protocol (sock_diag_rcv_msg, net/core/sock_diag.c), EPROTONOSUPPORT without sock_diag.
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
