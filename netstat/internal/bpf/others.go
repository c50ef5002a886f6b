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

// Owners is not available.
type Owners struct{}

// OpenOwners returns an error.
func OpenOwners(string) (*Owners, error) { return nil, errNoProgram }

// Start returns an error.
func (*Owners) Start() (io.ReadCloser, error) { return nil, errNoProgram }

// Each returns an error.
func (*Owners) Each(context.Context, io.Reader, func(*Process, []uint64)) error { return errNoProgram }

// Close does nothing.
func (*Owners) Close() {}

// Connects is not available.
type Connects struct{}

// OpenConnects returns an error.
func OpenConnects(string, uint64) (*Connects, error) { return nil, errNoProgram }

// Lookup returns false.
func (*Connects) Lookup(uint64) (Connect, bool) { return Connect{}, false }

// Drain does nothing.
func (*Connects) Drain(func(*End)) {}

// Lost returns 0.
func (*Connects) Lost() uint64 { return 0 }

// Wait returns at once.
func (*Connects) Wait(func()) {}

// Close does nothing.
func (*Connects) Close() {}
