package procnetstat

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// userChange is a daemon that drops its privileges while three plugins look: one shows its user, two filter by it.
type userChange struct {
	t                     *testing.T
	daemon                *testnet.Proc
	all, rootOnly, noRoot *live
}

func startDaemon(t *testing.T) *testnet.Proc {
	t.Helper()
	daemon := testnet.Start(t, testnet.Process{Name: "drops-root"})
	daemon.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})
	return daemon
}

func newUserChange(t *testing.T, daemon *testnet.Proc, owners string) *userChange {
	t.Helper()
	c := &userChange{t: t, daemon: daemon}
	options := "owners = \"" + owners + "\"\nclosed_connections = \"off\"\nprocess_include = [\"drops-root\"]\nmeasurements = [\"process\"]\n"
	c.all = start(t, options)
	c.rootOnly = start(t, options+`user_include = ["root"]`)
	c.noRoot = start(t, options+`user_exclude = ["root"]`)
	return c
}

// requireUser requires that the plugins show this user.
func (c *userChange) requireUser(user string) {
	c.t.Helper()
	for l, wants := range map[*live]bool{c.all: true, c.rootOnly: user == "root", c.noRoot: user != "root"} {
		var tags []string
		for key := range l.gather().all("procnetstat_process") {
			tags = append(tags, key)
		}
		if wants {
			require.Equal(c.t, []string{"process_name=drops-root,user=" + user}, tags)
		} else {
			require.Empty(c.t, tags)
		}
	}
}

// The tag user and the filters by user follow a daemon that drops its privileges.
func TestUserChangesBPF(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		c := newUserChange(t, startDaemon(t), "bpf")
		c.requireUser("root")
		c.requireUser("root")
		c.daemon.SetUser(65534)
		c.requireUser("nobody")
		c.requireUser("nobody")
	})
}

// From procfs they do so within a minute. The bubble's time is not the kernel's.
func TestUserChangesProcfs(t *testing.T) {
	daemon := startDaemon(t)
	synctest.Test(t, func(t *testing.T) {
		c := newUserChange(t, daemon, "procfs")
		c.requireUser("root")
		c.daemon.SetUser(65534)
		time.Sleep(10 * time.Second)
		c.requireUser("root") // no gather reads what the one before has read
		time.Sleep(30 * time.Second)
		c.requireUser("nobody")
	})
}
