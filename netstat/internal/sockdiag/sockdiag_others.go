//go:build !linux

package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// Opener cannot open connections: this system has no sock_diag.
type Opener struct{ Prefetch func(payload []byte) }

// Open returns errors.ErrUnsupported.
func (*Opener) Open() (*Conn, error) { return nil, errNoSockDiag }

// Conn cannot be opened.
type Conn struct{}

// Dump returns errors.ErrUnsupported.
func (*Conn) Dump(context.Context, Request, func([]byte) bool) (bool, error) {
	return false, errNoSockDiag
}

// AppendDeviceName returns errors.ErrUnsupported.
func (*Conn) AppendDeviceName(name []byte, _ uint32) ([]byte, error) { return name, errNoSockDiag }

// Close does nothing.
func (*Conn) Close() error { return nil }

// Subscription cannot be opened.
type Subscription struct{}

// Subscribe returns errors.ErrUnsupported.
func Subscribe(Handler, int) (*Subscription, error) { return nil, errNoSockDiag }

// SetBuffer does nothing.
func (*Subscription) SetBuffer(int) {}

// Sync does nothing.
func (*Subscription) Sync(func(int)) {}

// Close does nothing.
func (*Subscription) Close() {}

var errNoSockDiag = fmt.Errorf("sock_diag on %s: %w", runtime.GOOS, errors.ErrUnsupported)
