package netstat

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// writeTCP writes a table of TCP sockets: "L80" is a listener at port 80, "80" a connection to it, and everything else a broken
// row. The inodes count from first.
func writeTCP(tb testing.TB, root, table string, first int, rows ...string) {
	tb.Helper()
	address := strings.Repeat("0", 8)
	if strings.HasSuffix(table, "6") {
		address = strings.Repeat("0", 32)
	}
	var b strings.Builder
	b.WriteString("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n")
	for i, row := range rows {
		state, port := "01", 0
		if strings.HasPrefix(row, "L") {
			state = "0A"
		}
		if _, err := fmt.Sscanf(strings.TrimPrefix(row, "L"), "%d", &port); err != nil {
			fmt.Fprintln(&b, row)
			continue
		}
		fmt.Fprintf(&b, "%4d: %s:%04X %s:%04X %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0 20 4 0 10 -1\n",
			i, address, port, address, i, state, first+i)
	}
	require.NoError(tb, os.MkdirAll(filepath.Join(root, "net"), 0o755))
	require.NoError(tb, os.WriteFile(filepath.Join(root, "net", table), []byte(b.String()), 0o644))
}

func writeNoOrder(tb testing.TB, root string) {
	tb.Helper()
	writeTCP(tb, root, "tcp", 10, "80", "81", "L80", "broken", "80", "L81")
	writeTCP(tb, root, "tcp6", 20, "L90", "90", "also broken", "L91", "91")
}

// rowsOf returns the inodes of a scan's sockets, in their order, and "error" for an error.
func rowsOf(t *testing.T, s *Scanner) string {
	t.Helper()
	var rows []string
	for socket, err := range s.Sockets(t.Context()) {
		if err != nil {
			require.ErrorContains(t, err, "broken")
			rows = append(rows, "error")
			continue
		}
		rows = append(rows, strconv.FormatUint(socket.Inode, 10))
	}
	return strings.Join(rows, " ")
}

// From a copy, whose rows have no order, the listeners of both families come first in every scan, and a broken row once.
func TestRowsInNoOrder(t *testing.T) {
	root := t.TempDir()
	writeTCP(t, root, "tcp", 10, "L80", "80")
	writeTCP(t, root, "tcp6", 20, "L90", "90")
	s := newScanner(t, ScannerConfig{ProcRoot: root, Transports: []Transport{TransportTCP}, OwnerMethod: OwnersOff})
	for range 3 {
		require.Equal(t, "10 20 11 21", rowsOf(t, s))
	}
	writeNoOrder(t, root)
	for range 3 {
		require.Equal(t, "12 15 20 23 10 11 14 error 21 24 error", rowsOf(t, s))
	}
}

// The case of a copy of a host with one listener, in the middle of its connections.
func TestRowsInNoOrderOfHost(t *testing.T) {
	UseLittleEndian(t)
	s := newScanner(t, ScannerConfig{ProcRoot: "testdata/rows-in-no-order"})
	var states []string
	for socket, err := range s.Sockets(t.Context()) {
		require.NoError(t, err)
		states = append(states, fmt.Sprint(socket.Local.Port(), " ", socket.State))
	}
	require.Equal(t, []string{"7001 LISTEN", "7001 ESTABLISHED", "7001 ESTABLISHED", "7001 ESTABLISHED"}, states)
}

// A table that cannot be read is one error, though it is tried twice.
func TestUnreadableTableIsOneError(t *testing.T) {
	root := t.TempDir()
	writeTCP(t, root, "tcp6", 20, "90", "L90")
	s := newScanner(t, ScannerConfig{ProcRoot: root, Transports: []Transport{TransportTCP}, OwnerMethod: OwnersOff})
	var inodes []uint64
	var errs []error
	for socket, err := range s.Sockets(t.Context()) {
		if err != nil {
			errs = append(errs, err)
		} else {
			inodes = append(inodes, socket.Inode)
		}
	}
	require.Equal(t, []uint64{21, 20}, inodes)
	require.Len(t, errs, 1)
	require.Equal(t, 1, strings.Count(errs[0].Error(), "opening the tcp table"))
}

// A scan can be stopped in the first of two passes.
func TestStoppedInFirstPass(t *testing.T) {
	root := t.TempDir()
	writeNoOrder(t, root)
	s := newScanner(t, ScannerConfig{ProcRoot: root, Transports: []Transport{TransportTCP}, OwnerMethod: OwnersOff})
	for socket, err := range s.Sockets(context.Background()) {
		require.NoError(t, err)
		require.EqualValues(t, 12, socket.Inode)
		break
	}
	require.Equal(t, 1, s.Stats().Sockets)
}
