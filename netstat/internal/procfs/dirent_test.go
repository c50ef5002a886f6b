package procfs

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// dirent formats a struct linux_dirent64 with any d_reclen.
func dirent(reclen uint16, rest string) []byte {
	b := make([]byte, 16, 32) // d_ino, d_off
	b = binary.NativeEndian.AppendUint16(b, reclen)
	b = append(b, 10 /* DT_LNK */)
	return append(b, rest...)
}

func names(entries []byte) []string {
	var names []string
	EachDirent(entries, func(e DirEntry) bool { names = append(names, string(e.Name)); return true })
	return names
}

func TestEachDirent(t *testing.T) {
	one, two := dirent(24, "3\x00\x00\x00\x00"), dirent(24, "1024\x00")
	for _, test := range []struct {
		name    string
		entries [][]byte
		want    []string
	}{
		{"nothing", nil, nil},
		{"two", [][]byte{one, two}, []string{"3\x00", "1024\x00"}},
		{"garbage after the name", [][]byte{dirent(24, "3\x00xyz")}, []string{"3\x00"}},
		{"no name", [][]byte{dirent(24, "\x00\x00\x00\x00\x00"), one}, []string{"3\x00"}},
		{"no end of the name", [][]byte{dirent(24, "12345"), one}, []string{"3\x00"}},
		{"length 0", [][]byte{one, dirent(0, "4\x00\x00\x00\x00"), two}, []string{"3\x00"}},
		{"length without a name", [][]byte{one, dirent(19, ""), two}, []string{"3\x00"}},
		{"length out of range", [][]byte{one, dirent(25, "4\x00\x00\x00\x00")}, []string{"3\x00"}},
		{"cut off", [][]byte{one, two[:19]}, []string{"3\x00"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, names(bytes.Join(test.entries, nil)))
		})
	}
}

// A name is not empty, lies within its entry and ends with its only NUL.
func FuzzDirents(f *testing.F) {
	f.Add(dirent(24, "1024\x00"))
	f.Fuzz(func(t *testing.T, entries []byte) {
		before := bytes.Clone(entries)
		size := 0
		EachDirent(entries, func(e DirEntry) bool {
			require.Greater(t, len(e.Name), 1)
			require.Equal(t, len(e.Name)-1, bytes.IndexByte(e.Name, 0))
			size += 19 + len(e.Name)
			return true
		})
		require.LessOrEqual(t, size, len(entries))
		require.Equal(t, before, entries)
	})
}
