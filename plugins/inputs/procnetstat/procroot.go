package procnetstat

import (
	"fmt"
	"os"
	"slices"
	"strconv"
)

// checkProcRoot returns an error if the directory cannot be read, or is neither a proc file system nor a copy of one, which need not
// have all tables. An empty one is a mount point where nothing is mounted.
func checkProcRoot(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(entries, isOfProc) {
		return fmt.Errorf("%s is no proc file system: it has none of net, self, version and processes", root)
	}
	return nil
}

func isOfProc(entry os.DirEntry) bool {
	_, err := strconv.ParseUint(entry.Name(), 10, 31)
	return err == nil || slices.Contains([]string{"net", "self", "version"}, entry.Name())
}
