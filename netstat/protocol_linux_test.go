package netstat_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat"
)

// The connections are those that ss shows and the test opened.
func TestConnectionsLive(t *testing.T) {
	testnet.Isolate(t, func() {
		var made []testnet.Socket
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			made = append(made, testnet.States(t, network).Sockets...)
		}
		made = append(made, testnet.UDP(t).Sockets...)

		server := testnet.Start(t, testnet.Process{Name: "a) (b", Args: []string{"first argument", "", "third"}, UID: 65534, GID: 65534})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 5)
		workers := server.Fork(2)
		client := testnet.Start(t, testnet.Process{Name: "client"})
		client.Connect(listener.Local, 3)
		accepted := workers[1].Accept(listener, 2)
		made = append(made, server.UDP("udp6", netip.AddrPort{}, netip.AddrPort{}))

		var connections []*netstat.Connection
		for _, protocol := range []*netstat.Protocol{netstat.TCP, netstat.TCP6, netstat.UDP, netstat.UDP6} {
			of, err := protocol.Connections()
			require.NoError(t, err)
			require.NotEmpty(t, of)
			connections = append(connections, of...)
		}

		var got, want []string
		byInode := map[uint64]*netstat.Connection{}
		for _, c := range connections {
			got = append(got, fmt.Sprint(c.Protocol.Name, " ", c.State, " ", addrPort(t, c.IP, c.Port), " ", addrPort(t, c.RemoteIP, c.RemotePort),
				" rx=", c.ReceiveQueue, " tx=", c.TransmitQueue, " inode=", c.Inode, " uid=", c.UserID, " pid=", c.Pid))
			byInode[c.Inode] = c
		}
		for _, r := range testnet.SS(t, "-A", "tcp,udp", "-p") {
			name, pid := r.Netid, 0
			if r.Local.Addr().Is6() {
				name += "6"
			}
			for _, p := range r.Processes {
				if pid == 0 || p.PID < pid {
					pid = p.PID
				}
			}
			if r.State == "LISTEN" {
				r.SendQ = 0 // the accept queue limit, which /proc/net lacks
			}
			want = append(want, fmt.Sprint(name, " ", r.State, " ", r.Local, " ", r.Remote,
				" rx=", r.RecvQ, " tx=", r.SendQ, " inode=", r.Inode, " uid=", r.UID, " pid=", pid))
		}
		slices.Sort(got)
		slices.Sort(want)
		require.Equal(t, want, got)

		for _, s := range made {
			if s.Inode != 0 {
				c := byInode[s.Inode]
				require.NotNil(t, c, "no connection for %+v", s)
				require.Equal(t, s.Protocol, c.Protocol.Name)
				require.Equal(t, s.State, c.State.String())
				require.Equal(t, uint64(s.RecvQ), c.ReceiveQueue)
			}
		}
		require.Equal(t, server.PID, byInode[listener.Inode].Pid, "workers also hold the listener")
		require.Equal(t, workers[1].PID, byInode[accepted[0].Inode].Pid)
		require.Equal(t, "65534", byInode[listener.Inode].UserID)
		require.Equal(t, []string{"first argument", "", "third"}, byInode[listener.Inode].Cmdline[1:])
		require.Equal(t, "a) (b", filepath.Base(byInode[listener.Inode].Exe))

		self, err := os.Executable()
		require.NoError(t, err)
		require.Equal(t, os.Getpid(), byInode[firstInode(made)].Pid)
		require.Equal(t, self, byInode[firstInode(made)].Exe)
		require.Equal(t, os.Args, byInode[firstInode(made)].Cmdline)
	})
}

// Connections of the tables that ss lacks, at least with some kernels.
func TestConnectionsLiveOthers(t *testing.T) {
	testnet.Isolate(t, func() {
		protocols := []*netstat.Protocol{netstat.Raw, netstat.Raw6, netstat.ICMP, netstat.ICMP6}
		made := slices.Concat(testnet.Raw(t).Sockets, testnet.Ping(t).Sockets)
		if load, ok := testnet.UDPLite(t); ok {
			protocols = append(protocols, netstat.UDPLite, netstat.UDPLite6)
			made = append(made, load.Sockets...)
		}
		var got, want []string
		for _, protocol := range protocols {
			connections, err := protocol.Connections()
			require.NoError(t, err)
			for _, c := range connections {
				require.Equal(t, os.Getpid(), c.Pid, summary(c))
				got = append(got, fmt.Sprint(protocol.Name, " ", c.State, " ", addrPort(t, c.IP, c.Port), " ", addrPort(t, c.RemoteIP, c.RemotePort),
					" rx=", c.ReceiveQueue, " tx=", c.TransmitQueue, " inode=", c.Inode, " uid=", c.UserID))
			}
		}
		for _, s := range made {
			want = append(want, fmt.Sprint(s.Protocol, " ", s.State, " ", s.Local, " ", s.Remote,
				" rx=", s.RecvQ, " tx=", s.SendQ, " inode=", s.Inode, " uid=", s.UID))
		}
		slices.Sort(got)
		slices.Sort(want)
		require.Equal(t, want, got)
	})
}

// A process that cannot read the descriptors of others returns their sockets without processes.
func TestConnectionsDenied(t *testing.T) {
	testnet.Isolate(t, func() {
		if os.Getuid() != 0 {
			testnet.SkipOrFail(t, "becoming another user requires root")
		}
		server := testnet.Start(t, testnet.Process{Name: "server"})
		listener := server.Listen("tcp4", netip.AddrPort{}, 5)
		// This applies to all threads. The saved user ID permits the way back.
		require.NoError(t, syscall.Setresuid(65534, 65534, 0))
		connections, err := netstat.TCP.Connections()
		require.NoError(t, syscall.Setresuid(0, 0, 0))

		require.NoError(t, err)
		require.Len(t, connections, 1)
		require.Equal(t, listener.Inode, connections[0].Inode)
		require.Zero(t, connections[0].Pid)
		require.Empty(t, connections[0].Exe)
		require.Equal(t, []string{}, connections[0].Cmdline)
	})
}

func addrPort(t *testing.T, ip []byte, port int) netip.AddrPort {
	t.Helper()
	addr, ok := netip.AddrFromSlice(ip)
	require.True(t, ok)
	return netip.AddrPortFrom(addr, uint16(port))
}

func firstInode(sockets []testnet.Socket) uint64 {
	i := slices.IndexFunc(sockets, func(s testnet.Socket) bool { return s.Inode != 0 })
	return sockets[i].Inode
}
