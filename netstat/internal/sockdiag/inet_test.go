package sockdiag

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

func TestParseInet(t *testing.T) {
	for _, test := range []sockdiagtest.Inet{
		{Family: AFInet, Local: "192.0.2.1:80", Remote: "198.51.100.7:50000"},
		{Family: AFInet6, Local: "[::ffff:192.0.2.1]:80", Remote: "[2001:db8::7]:65535"},
		{Family: AFInet6, Local: "[::]:256", Remote: "[::]:0"},
	} {
		test.State, test.Interface, test.Cookie = 200, 3, 0xfedcba9876543210
		test.RecvQueue, test.SendQueue, test.UID, test.Inode = 1<<31, 5, 4294967294, 1<<32-1
		test.Attributes = attribute(9, []byte("value"))
		b := test.Bytes()
		m, err := ParseInet(b)
		require.NoError(t, err)
		require.Equal(t, []any{
			test.Family, test.State, netip.MustParseAddrPort(test.Local), netip.MustParseAddrPort(test.Remote),
			test.Interface, test.Cookie, test.RecvQueue, test.SendQueue, test.UID, test.Inode,
		}, []any{
			m.Family(), m.State(), m.Local(), m.Remote(), m.Interface(), m.Cookie(), m.RecvQueue(), m.SendQueue(), m.UID(), m.Inode(),
		})
		types, values, err := readAttributes(m.Attributes())
		require.NoError(t, err)
		require.Equal(t, []uint16{9}, types)
		require.Equal(t, []string{"value"}, values)

		inode, ok := InetInode(b[:72])
		require.True(t, ok)
		require.Equal(t, test.Inode, inode)
		for _, none := range [][]byte{nil, b[:71], append([]byte{AFUnix}, b[1:]...)} {
			_, ok = InetInode(none)
			require.False(t, ok)
		}
	}
}

func TestParseInetErrors(t *testing.T) {
	whole := sockdiagtest.Inet{Family: AFInet, Local: "192.0.2.1:80", Remote: "192.0.2.1:80"}.Bytes()
	unix := bytes.Clone(whole)
	unix[0] = AFUnix
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "inet_diag_msg of 0 bytes: message is cut off"},
		{"one byte short", whole[:71], "inet_diag_msg of 71 bytes: message is cut off"},
		{"unix socket", unix, "inet_diag_msg of unknown address family 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseInet(test.b)
			require.EqualError(t, err, test.want)
		})
	}
}

// A value that is too short is absent.
func TestInetValues(t *testing.T) {
	memInfo := u32s(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	for length := range memInfo {
		drops, ok := Drops(memInfo[:length])
		require.Equal(t, length >= 36, ok)
		if ok {
			require.EqualValues(t, 9, drops)
		}
	}
	cgroup := binary.NativeEndian.AppendUint64(nil, 1<<40|7)
	for length := range len(cgroup) + 1 {
		id, ok := CgroupID(cgroup[:length])
		require.Equal(t, length == 8, ok)
		if ok {
			require.Equal(t, uint64(1<<40|7), id)
		}
	}
}

// A payload is an error, or a message whose values can all be read.
func FuzzParseInet(f *testing.F) {
	addCaptures(f, func(r Request) bool { return r.Family != AFUnix })
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		m, err := ParseInet(b)
		if err != nil {
			require.Equal(t, InetMessage{}, m)
			return
		}
		require.GreaterOrEqual(t, len(b), inetMessageLen)
		is4 := m.Family() == AFInet
		require.True(t, is4 || m.Family() == AFInet6)
		require.Equal(t, []bool{is4, is4}, []bool{m.Local().Addr().Is4(), m.Remote().Addr().Is4()})
		inode, ok := InetInode(b)
		require.True(t, ok)
		require.Equal(t, m.Inode(), inode)
		_ = []any{m.State(), m.Interface(), m.Cookie(), m.RecvQueue(), m.SendQueue(), m.UID()}
		requireAttributes(t, b[inetMessageLen:], m.Attributes())
		require.Equal(t, before, b)
	})
}
