// Package proctree creates proc file systems for tests: copies of the trees in testdata directories, with symbolic links. Module
// archives cannot contain links, so a tree lists them in a text file.
//
// Only tests import this package.
package proctree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// linksFile is the file of a tree that lists its links, one a line: 1001/fd/3 -> socket:[12345].
const linksFile = "links"

// Materialize copies the tree to a directory that is removed after the test, and creates its links there.
func Materialize(tb testing.TB, tree string) (root string) {
	tb.Helper()
	root = filepath.Join(tb.TempDir(), "proc")
	if err := Copy(root, tree); err != nil {
		tb.Fatalf("copying the proc file system %s: %v", tree, err)
	}
	return root
}

// Copy is Materialize for callers without a test. The directory root must not exist.
func Copy(root, tree string) error {
	if err := os.CopyFS(root, os.DirFS(tree)); err != nil {
		return err
	}
	file := filepath.Join(root, linksFile)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if err := makeLink(root, strings.TrimSuffix(line, "\n")); err != nil {
			return fmt.Errorf("%s:%d: %w", filepath.Join(tree, linksFile), number, err)
		}
	}
	return os.Remove(file)
}

func makeLink(root, line string) error {
	path, target, ok := strings.Cut(line, " -> ")
	if !ok || target == "" || !filepath.IsLocal(path) {
		return fmt.Errorf("%q is not of the form path -> target", line)
	}
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(target, path)
}
