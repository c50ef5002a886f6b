//go:build linux

package procnetstat

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// Where cgroup v1 is used, a socket in the root of v2 that no process holds is in the cgroup of its listener; one that a process
// holds is where the process is.
func TestCgroupOfListener(t *testing.T) {
	root, web, shop := &cgroupEntry{path: "/"}, &cgroupEntry{path: "/web"}, &cgroupEntry{path: "/shop"}
	holder := []*owner{{process: &netstat.Process{PID: 1}}}
	for name, test := range map[string]struct {
		held               []*owner
		own, ofListener, c *cgroupEntry
	}{
		"not known":                            {nil, nil, web, web},
		"not known, held":                      {holder, nil, web, web},
		"root":                                 {nil, root, web, web},
		"root, held":                           {holder, root, web, root},
		"root, that of the listener not known": {nil, root, nil, root},
		"its own":                              {nil, shop, web, shop},
		"its own, held":                        {holder, shop, web, shop},
		"none known":                           {nil, nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pass{holders: test.held}
			o := &observation{owners: test.held, cgroup: test.own, listener: &listener{cgroup: test.ofListener}}
			p.inheritFromListener(o)
			require.Same(t, test.c, o.cgroup)
		})
	}
}
