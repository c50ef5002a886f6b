package netstat

import (
	"encoding/binary"
	"testing"
)

// UseLittleEndian has the tables of /proc/net read as those of a little-endian host, which is where testdata was recorded.
func UseLittleEndian(tb testing.TB) {
	tb.Helper()
	order := hostOrder
	hostOrder = binary.LittleEndian
	tb.Cleanup(func() { hostOrder = order })
}
