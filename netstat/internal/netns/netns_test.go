package netns

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDir(t *testing.T) {
	require.Equal(t, "/run/netns", Dir("/proc"))
	require.Equal(t, "/run/netns", Dir("/proc/"))
	require.Equal(t, "/host/proc/1/root/run/netns", Dir("/host/proc"))
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	_, err := Names(filepath.Join(dir, "absent"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	for _, name := range []string{"red", "blue"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	names, err := Names(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"blue", "red"}, names)
}

// A copy of a proc file system has no namespace links.
func TestOfCopy(t *testing.T) {
	require.Zero(t, Of(t.TempDir()))
	require.Zero(t, TableOf(t.TempDir()))
}
