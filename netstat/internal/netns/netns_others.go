//go:build !linux

package netns

import (
	"errors"
	"fmt"
)

var errNotLinux = fmt.Errorf("network namespaces: %w", errors.ErrUnsupported)

// Inode returns 0.
func Inode(string) uint64 { return 0 }

// MountedAt fails.
func MountedAt(string) (uint64, error) { return 0, errNotLinux }

// Enter fails.
func Enter(string, uint64, func() error) (table uint64, err error) { return 0, errNotLinux }
