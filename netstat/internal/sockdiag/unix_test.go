package sockdiag

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

func TestParseUnix(t *testing.T) {
	m, err := ParseUnix(sockdiagtest.Unix(7, attribute(9, []byte("value"))))
	require.NoError(t, err)
	require.Equal(t, []any{uint8(7), uint32(4711), uint64(0x0123456789abcdef)}, []any{m.State(), m.Inode(), m.Cookie()})
	types, values, err := readAttributes(m.Attributes())
	require.NoError(t, err)
	require.Equal(t, []uint16{9}, types)
	require.Equal(t, []string{"value"}, values)
}

func TestParseUnixErrors(t *testing.T) {
	whole := sockdiagtest.Unix(7)
	inet := bytes.Clone(whole)
	inet[0] = AFInet
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "unix_diag_msg of 0 bytes: message is cut off"},
		{"one byte short", whole[:15], "unix_diag_msg of 15 bytes: message is cut off"},
		{"other family", inet, "unix_diag_msg of unknown address family 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseUnix(test.b)
			require.EqualError(t, err, test.want)
		})
	}
}

// A value that is too short is absent.
func TestUnixValues(t *testing.T) {
	queues := u32s(3, 768)
	for length := range len(queues) + 1 {
		recv, send, ok := Queues(queues[:length])
		require.Equal(t, length == 8, ok)
		if ok {
			require.Equal(t, []uint32{3, 768}, []uint32{recv, send})
		}
		uid, ok := UID(queues[:length])
		require.Equal(t, length >= 4, ok)
		if ok {
			require.EqualValues(t, 3, uid)
		}
	}
}

// A payload is an error, or a message whose values can all be read.
func FuzzParseUnix(f *testing.F) {
	addCaptures(f, func(r Request) bool { return r.Family == AFUnix })
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		m, err := ParseUnix(b)
		if err != nil {
			require.Equal(t, UnixMessage{}, m)
			return
		}
		require.GreaterOrEqual(t, len(b), unixMessageLen)
		_ = []any{m.State(), m.Inode(), m.Cookie()}
		requireAttributes(t, b[unixMessageLen:], m.Attributes())
		require.Equal(t, before, b)
	})
}
