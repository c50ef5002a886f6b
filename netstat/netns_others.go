//go:build !linux

package netstat

import (
	"errors"
	"fmt"
)

func netNSOf(string) uint64 { return 0 }

func netTable(string) uint64 { return 0 }

func namespaceFile(string) (uint64, error) { return 0, errNoNamespaces }

func inNamespace(string, uint64, func() error) (uint64, error) { return 0, errNoNamespaces }

var errNoNamespaces = fmt.Errorf("network namespaces: %w", errors.ErrUnsupported)
