package proctree

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// writeTree writes a tree with the contents of files by path.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	tree := t.TempDir()
	for name, content := range files {
		path := filepath.Join(tree, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return tree
}

func TestMaterialize(t *testing.T) {
	tree := writeTree(t, map[string]string{
		"net/tcp":   "header\n",
		"7/cmdline": "a\x00b\xff\x00",
		"links":     "7/fd/3 -> socket:[12345]\n7/exe -> /a file -> here (deleted)",
	})
	root := Materialize(t, tree)

	content, err := os.ReadFile(filepath.Join(root, "7", "cmdline"))
	require.NoError(t, err)
	require.Equal(t, "a\x00b\xff\x00", string(content))
	for path, want := range map[string]string{"7/fd/3": "socket:[12345]", "7/exe": "/a file -> here (deleted)"} {
		target, err := os.Readlink(filepath.Join(root, path))
		require.NoError(t, err)
		require.Equal(t, want, target)
	}
	require.NoFileExists(t, filepath.Join(root, "links"), "a proc file system has no such file")
	require.FileExists(t, filepath.Join(tree, "links"), "the tree stays as it is")
}

func TestMaterializeWithoutLinks(t *testing.T) {
	root := Materialize(t, writeTree(t, map[string]string{"net/tcp": "header\n"}))
	require.FileExists(t, filepath.Join(root, "net", "tcp"))
}

func TestCopyErrors(t *testing.T) {
	for name, test := range map[string]struct{ links, want string }{
		"no arrow":    {"7/exe -> a\n7/fd/3 socket:[1]\n", `links:2: "7/fd/3 socket:[1]" is not of the form path -> target`},
		"no target":   {"7/exe -> \n", `links:1: "7/exe -> " is not of the form path -> target`},
		"no path":     {" -> a\n", `links:1: " -> a" is not of the form path -> target`},
		"empty line":  {"\n", `links:1: "" is not of the form path -> target`},
		"outside":     {"../exe -> a\n", `links:1: "../exe -> a" is not of the form path -> target`},
		"file exists": {"7/stat -> a\n", "links:1: symlink a "},
	} {
		t.Run(name, func(t *testing.T) {
			tree := writeTree(t, map[string]string{"7/stat": "", "links": test.links})
			err := Copy(filepath.Join(t.TempDir(), "proc"), tree)
			require.ErrorContains(t, err, filepath.Join(tree, test.want))
		})
	}
	t.Run("no tree", func(t *testing.T) {
		err := Copy(filepath.Join(t.TempDir(), "proc"), filepath.Join(t.TempDir(), "missing"))
		require.True(t, errors.Is(err, fs.ErrNotExist), "%v", err)
	})
}
