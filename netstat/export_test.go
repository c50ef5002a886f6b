package netstat

import (
	"encoding/binary"
	"testing"
)

// UseLittleEndian makes the library parse /proc/net as on a little-endian host, where testdata was recorded.
func UseLittleEndian(tb testing.TB) {
	tb.Helper()
	order := hostOrder
	hostOrder = binary.LittleEndian
	tb.Cleanup(func() { hostOrder = order })
}
