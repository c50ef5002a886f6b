package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

func TestOf(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, dir := range []string{"/proc/self", "/proc/thread-self"} {
		link, err := os.Readlink(dir + "/ns/net")
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("net:[%d]", Of(dir)), link)
	}
}

func TestMountedAt(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		inode, err := MountedAt(path)
		require.NoError(t, err)
		_, err = Enter(path, 0, func() error {
			assert.Equal(t, inode, Of(ThreadDir))
			return nil
		})
		require.NoError(t, err)
		left := filepath.Join(testnet.NetnsDir, "left")
		require.NoError(t, os.WriteFile(left, nil, 0o444))
		_, err = MountedAt(left)
		require.EqualError(t, err, "/run/netns/left: no namespace is mounted there: file does not exist")
		_, err = MountedAt(left + "s")
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

// A thread enters only the expected namespace, and leaves it afterwards.
func TestEnter(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		called := false
		_, err := Enter(path, Inode(path)+1, func() error { called = true; return nil })
		require.EqualError(t, err, "/run/netns/blue: refers to another network namespace now: file does not exist")
		require.ErrorIs(t, err, ErrMoved)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.False(t, called)
		table, err := Enter(path, Inode(path), func() error {
			called = true
			assert.Equal(t, Inode(path), Of(ThreadDir))
			return nil
		})
		require.NoError(t, err)
		require.True(t, called)
		require.NotEqual(t, TableOf(ThreadDir), table)
		failed := errors.New("failed on purpose")
		_, err = Enter(path, 0, func() error { return failed })
		require.ErrorIs(t, err, failed)
		testnet.ThreadsReturn(t)
	})
}

// A file that is not a namespace cannot be entered.
func TestEnterOtherFile(t *testing.T) {
	testnet.SkipIfShort(t)
	_, err := Enter("/proc/self/stat", 0, func() error { return errors.New("it was called") })
	require.ErrorIs(t, err, unix.EINVAL)
	_, err = Enter("/proc/self/none", 0, func() error { return errors.New("it was called") })
	require.EqualError(t, err, "open /proc/self/none: no such file or directory")
}
