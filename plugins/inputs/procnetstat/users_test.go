//go:build linux

package procnetstat

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

func TestUserNames(t *testing.T) {
	etc := t.TempDir()
	t.Setenv("HOST_ETC", etc)
	require.NoError(t, os.WriteFile(filepath.Join(etc, "passwd"), []byte(`# the users of a host
+::::::
root:x:0:0:root:/root:/bin/bash
toor:x:0:0:the second of this number:/root:/bin/bash

web:x:33:33::/var/www:/usr/sbin/nologin
x y`+"\xff"+`:x:34:34::/:
+@admins::35:35:::
most:x:4294967294:1::/:
short:x:36
`), 0o600))
	names := newUserNames(nil)
	for range 2 {
		for uid, want := range map[uint32]string{
			0: "root", 33: "web", 34: `x y\xff`, 35: "35", 36: "short", 37: "37", 1<<32 - 2: "most", 1<<32 - 1: "4294967295",
		} {
			require.Equal(t, want, names.of(uid))
		}
	}
}

func TestUserNamesOfThisHost(t *testing.T) {
	t.Setenv("HOST_ETC", "")
	names := newUserNames(nil)
	require.Equal(t, []string{"root", "nobody", "4000000000"}, []string{names.of(0), names.of(65534), names.of(4000000000)})
}

// TestUsersOfOtherHost: the names are those of HOST_ETC, for filters too. If they cannot be read, one log line reports it, and
// later gathers try again.
func TestUsersOfOtherHost(t *testing.T) {
	t.Setenv("HOST_PROC", proctree.Materialize(t, filepath.Join("..", "..", "..", "netstat", "testdata", "proc", "small")))
	etc := t.TempDir()
	t.Setenv("HOST_ETC", etc)
	const processes = "measurements = [\"process\"]\n"
	l := start(t, processes+`process_include = ["nginx"]`)
	for range 2 {
		require.NotEmpty(t, l.gather().all("procnetstat_process", "process_name=nginx", "user=33"))
	}
	messages := l.log.Messages()
	require.Len(t, messages, 1)
	require.True(t, strings.HasPrefix(messages[0].String(), "W! "), messages[0])
	require.Contains(t, messages[0].String(),
		"Cannot look up user names; reporting user IDs instead: HOST_ETC: open "+filepath.Join(etc, "passwd"))

	require.NoError(t, os.WriteFile(filepath.Join(etc, "passwd"), []byte("web-of-host:x:33:33::/:\n"), 0o600))
	for range 2 {
		g := l.gather()
		require.NotEmpty(t, g.all("procnetstat_process", "process_name=nginx", "user=web-of-host"))
		require.Empty(t, g.all("procnetstat_process", "process_name=nginx", "user=33"))
	}
	require.Len(t, l.log.Messages(), 1)
	l = start(t, processes+`user_exclude = ["web-of-*"]`)
	require.Empty(t, l.gather().all("procnetstat_process", "user=web-of-host"))
}

// What is kept of users is bounded, however many a container has.
func TestUserNamesAreBounded(t *testing.T) {
	etc := t.TempDir()
	t.Setenv("HOST_ETC", etc)
	require.NoError(t, os.WriteFile(filepath.Join(etc, "passwd"), []byte("root:x:0:0::/:\n"), 0o600))
	names := newUserNames(nil)
	for uid := range uint32(3 * maxUsers) {
		_ = names.of(uid)
		require.LessOrEqual(t, len(names.byID), maxUsers)
	}
	require.Equal(t, "root", names.of(0))
}
