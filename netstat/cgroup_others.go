//go:build !linux

package netstat

import "fmt"

func openCgroupTree(string) (cgroupTree, error) {
	return nil, fmt.Errorf("%w: it takes Linux", ErrNoCgroup2)
}
