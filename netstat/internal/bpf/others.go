//go:build !linux || !(amd64 || arm64)

package bpf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
)

var errNoProgram = fmt.Errorf("no BPF program for %s on %s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)

// Owners finds the processes that hold the sockets of the host.
type Owners struct{}

// OpenOwners returns an error.
func OpenOwners(string) (*Owners, error) { return nil, errNoProgram }

// Start returns an error.
func (*Owners) Start() (io.ReadCloser, error) { return nil, errNoProgram }

// Each returns an error.
func (*Owners) Each(context.Context, io.Reader, func(*Process, []uint64)) error { return errNoProgram }

// Close does nothing.
func (*Owners) Close() {}

// Connects records the processes that initiate TCP connections.
type Connects struct{}

// OpenConnects returns an error.
func OpenConnects(string) (*Connects, error) { return nil, errNoProgram }

// Lookup knows nothing.
func (*Connects) Lookup(uint64) (Connect, bool) { return Connect{}, false }

// Close does nothing.
func (*Connects) Close() {}
