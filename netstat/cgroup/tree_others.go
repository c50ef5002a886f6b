//go:build !linux

package cgroup

import "fmt"

func openFileSystem(string) (fileSystem, error) {
	return nil, fmt.Errorf("%w: requires Linux", ErrNotMounted)
}
