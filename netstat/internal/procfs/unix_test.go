package procfs

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseUnixRow(t *testing.T) {
	for name, test := range map[string]struct {
		row  string
		want UnixRow
	}{
		"listening":     {"000000001bc91a57: 00000002 00000000 00010000 0001 01 30001 /run/systemd/private", UnixRow{SOAcceptCon, 1, 30001}},
		"connected":     {"000000009f529a8e: 00000003 00000000 00000000 0001 03 30002 /run/systemd/private", UnixRow{0, SSConnected, 30002}},
		"connecting":    {"0000000063145fd1: 00000003 00000000 00000000 0001 02     0 @abstract@name", UnixRow{0, SSConnecting, 0}},
		"unconnected":   {"00000000707ea86c: 00000002 00000000 00000000 0002 01 30004 /run/a name with blanks", UnixRow{0, 1, 30004}},
		"no name":       {"000000000ccf3f95: 00000003 00000000 00000000 0001 01 30003", UnixRow{0, 1, 30003}},
		"32-bit host":   {"c1bc91a5: 00000002 00000000 00000000 0001 01 30001", UnixRow{0, 1, 30001}},
		"biggest inode": {"000000000ccf3f95: 00000003 00000000 00000000 0001 01 18446744073709551615", UnixRow{0, 1, 1<<64 - 1}},

		"pointer not hashed yet": {"(____ptrval____): 00000002 00000000 00010000 0001 01 12386 /run/systemd/journal/stdout", UnixRow{SOAcceptCon, 1, 12386}},
		"the same of 32 bits":    {"(ptrval): 00000003 00000000 00000000 0001 03 62985", UnixRow{0, SSConnected, 62985}},
		"no pointer":             {"          (null): 00000002 00000000 00010000 0001 01 15013 /run/dbus/system_bus_socket", UnixRow{SOAcceptCon, 1, 15013}},
		"no pointer of 32 bits":  {"  (null): 00000002 00000000 00000000 0002 01     0", UnixRow{0, 1, 0}},
		"kptr_restrict":          {"0000000000000000: 0000000B 00000000 00000000 0002 03  3238 /run/systemd/journal/socket", UnixRow{0, SSConnected, 3238}},
	} {
		t.Run(name, func(t *testing.T) {
			got := UnixRow{99, 99, 99} // nothing of the previous use remains
			require.NoError(t, got.Parse([]byte(test.row)))
			require.Equal(t, test.want, got)
		})
	}
}

func TestParseUnixRowErrors(t *testing.T) {
	for name, test := range map[string]struct{ row, want string }{
		"rest of a name":                   {"second line: of a name", ErrNotUnixRow.Error()},
		"empty":                            {"", ErrNotUnixRow.Error()},
		"only a colon":                     {":", ErrNotUnixRow.Error()},
		"NULs":                             {"\x00\x00", ErrNotUnixRow.Error()},
		"rest that begins with no pointer": {"(null): of a name", ErrNotUnixRow.Error()},
		"no pointer and nothing else":      {"(null):", ErrNotUnixRow.Error()},
		"no colon":                         {"(null) 00000002 00000000 00010000 0001 01 15013", ErrNotUnixRow.Error()},
		"another word":                     {"(efault): 00000002 00000000 00010000 0001 01 15013", ErrNotUnixRow.Error()},
		"cut after a word":                 {"(____ptrval____): 0000", `row "(____ptrval____): 0000" has 2 columns, at least 7 expected`},
		"cut":                              {"000000001bc91a57: 00000002", `row "000000001bc91a57: 00000002" has 2 columns, at least 7 expected`},
		"wide flags":                       {"1: 2 0 100000000 0001 01 30001", `flags "100000000": out of range`},
		"wide state":                       {"1: 2 0 00000000 0001 100 30001", `state "100": out of range`},
		"negative inode":                   {"1: 2 0 00000000 0001 01 -1", `inode "-1": not a number`},
		"wide inode":                       {"1: 2 0 00000000 0001 01 18446744073709551616", `inode "18446744073709551616": out of range`},
	} {
		t.Run(name, func(t *testing.T) {
			require.EqualError(t, new(UnixRow).Parse([]byte(test.row)), test.want)
		})
	}
}

// In every form of the pointer, the name follows the inode.
func TestParseUnixPathForms(t *testing.T) {
	for _, num := range []string{"000000001bc91a57", "c1bc91a5", "(____ptrval____)", "(ptrval)", "          (null)", "  (null)"} {
		row := num + ": 00000002 00000000 00010000 0001 01 12386"
		require.Equal(t, "/run/a name (null): b", string(ParseUnixPath([]byte(row+" /run/a name (null): b"))), "%q", row)
		require.Empty(t, ParseUnixPath([]byte(row)), "%q", row)
	}
}

func FuzzParseUnixRow(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		var row, again UnixRow
		if row.Parse(text) != nil {
			return
		}
		require.NoError(t, again.Parse(fmt.Appendf(nil, "0: 2 0 %08X 0001 %02X %5d", row.Flags, row.State, row.Inode)))
		require.Equal(t, row, again)
	})
}

// A path that follows the columns is returned unchanged.
func FuzzParseUnixPath(f *testing.F) {
	f.Add([]byte("000000001bc91a57: 00000002 00000000 00010000 0001 01 30001 /run/a b\x00\xff"))
	f.Fuzz(func(t *testing.T, row []byte) {
		path := ParseUnixPath(row)
		require.True(t, bytes.HasSuffix(row, path))
		again := "0: 2 0 0 1 1 30001 " + string(path)
		require.Equal(t, string(path), string(ParseUnixPath([]byte(again))))
	})
}
