//go:build linux

package procnetstat

import (
	"testing"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"
)

const containerID = "2403ccfe427f1dc7b6120dccb9ac58c2f8456950380d587a9f33ea7f00dd303d"

// Where cgroups v1 are used, a socket in the root of v2, or outside of any container there, is in the cgroup of its listener if that
// is more precise. One that a process holds is where the process is.
func TestCgroupOfListener(t *testing.T) {
	c := newCgroups(true, t.TempDir(), testutil.Logger{Quiet: true})
	root, web, runtime, shop := c.entry("/"), c.entry("/web"), c.entry("/system.slice/containerd.service"), c.entry("/docker/"+containerID)
	for name, test := range map[string]struct {
		usesV1               bool
		of, ofListener, want *cgroupEntry
	}{
		"not known":                            {false, nil, web, web},
		"root":                                 {false, root, web, web},
		"root, that of the listener not known": {false, root, nil, root},
		"its own":                              {false, runtime, shop, runtime},
		"none known":                           {false, nil, nil, nil},
		"v1: a container":                      {true, runtime, shop, shop},
		"v1: no container":                     {true, runtime, web, runtime},
		"v1: its own":                          {true, shop, runtime, shop},
	} {
		t.Run(name, func(t *testing.T) {
			c.usesV1 = test.usesV1
			require.Same(t, test.want, c.preferred(test.of, test.ofListener))
		})
	}
}
