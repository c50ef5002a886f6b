package procfs

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSocketLink(t *testing.T) {
	for _, test := range []struct {
		target   string
		inode    uint64
		isSocket bool
	}{
		{"socket:[12345]", 12345, true},
		{"socket:[0]", 0, true},
		{"socket:[18446744073709551615]", 1<<64 - 1, true},
		{"[0000]:12345", 12345, true},
		{"[0000]:18446744073709551615", 1<<64 - 1, true},

		{"", 0, false},
		{"/dev/null", 0, false},
		{"pipe:[12345]", 0, false},
		{"anon_inode:[eventpoll]", 0, false},
		{"/tmp/socket:[12345]", 0, false},
		{"socket:[]", 0, false},
		{"socket:[", 0, false},
		{"socket:[12345", 0, false},
		{"socket:12345]", 0, false},
		{"socket:[12345] ", 0, false},
		{"socket:[-1]", 0, false},
		{"socket:[0x1]", 0, false},
		{"socket:[18446744073709551616]", 0, false},
		{"[0000]:", 0, false},
		{"[0000]:[12345]", 0, false},
		{"[0001]:12345", 0, false},
	} {
		inode, isSocket := ParseSocketLink([]byte(test.target))
		require.Equal(t, test.isSocket, isSocket, "%q", test.target)
		require.Equal(t, test.inode, inode, "%q", test.target)
	}
}

func FuzzParseSocketLink(f *testing.F) {
	f.Fuzz(func(t *testing.T, target []byte) {
		inode, isSocket := ParseSocketLink(target)
		if !isSocket {
			require.Zero(t, inode, "of %q", target)
			return
		}
		for _, again := range []string{fmt.Sprintf("socket:[%d]", inode), fmt.Sprintf("[0000]:%d", inode)} {
			got, isSocket := ParseSocketLink([]byte(again))
			require.True(t, isSocket)
			require.Equal(t, inode, got)
		}
	})
}
