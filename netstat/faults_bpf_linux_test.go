//go:build amd64 || arm64

package netstat

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// ownerMethods are the methods that this architecture supports.
var ownerMethods = []OwnerMethod{OwnersBPF, OwnersProcfs}

// After retryInterval the scanner tries refused BPF programs again: the owner iterator and the connect recorder.
func TestScannerRetriesBPF(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		var warned []string
		var s *Scanner
		testnet.Failing(t, func() {
			s = newScanner(t, ScannerConfig{
				Transports: []Transport{TransportTCP}, Closed: ClosedAuto, Warn: func(err error) { warned = append(warned, err.Error()) },
			})
		}, testnet.Fails(unix.SYS_BPF, unix.EPERM))
		c := setClock(s)
		mustScan(t, s, inode)
		require.Equal(t, OwnersProcfs, s.Stats().OwnerMethod, "too early for a retry")
		require.Len(t, warned, 1)
		c.Time = c.Add(retryInterval)
		testnet.Failing(t, func() { mustScan(t, s, inode) }, testnet.Fails(unix.SYS_BPF, unix.EPERM))
		require.Equal(t, OwnersProcfs, s.Stats().OwnerMethod)
		require.Len(t, warned, 1)
		c.Time = c.Add(retryInterval)
		mustScan(t, s, inode)
		require.Equal(t, OwnersBPF, s.Stats().OwnerMethod)
		require.True(t, s.connects.isOpen())

		s.connects.Close() // as if only this program had been refused
		s.fallbacks.markUnavailable(fallbackConnects, errors.ErrUnsupported)
		mustScan(t, s, inode)
		require.False(t, s.connects.isOpen())
		c.Time = c.Add(retryInterval)
		mustScan(t, s, inode)
		require.True(t, s.connects.isOpen())
	})
}

// What failed at the start for lack of descriptors works once there are some.
func TestScannerOutOfDescriptorsAtStart(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		mustScan(t, newBPFScanner(t, ScannerConfig{}), inode) // opens what the runtime keeps open
		full := fillDescriptors(t)
		withoutBPF, withoutConnects := 0, 0
		for room := range 12 { // descriptors run out at a different step each time
			for _, closed := range []ClosedMode{ClosedOff, ClosedAuto} {
				full.leave(t, room)
				s, err := NewScanner(ScannerConfig{Transports: []Transport{TransportTCP}, Closed: closed})
				full.release(t)
				if err != nil {
					require.ErrorIs(t, err, unix.EMFILE)
					continue
				}
				withoutBPF += boolToInt(s.Stats().OwnerMethod != OwnersBPF)
				withoutConnects += boolToInt(closed == ClosedAuto && !s.connects.isOpen())
				processes := s.processes
				mustScan(t, s, inode)
				require.Equal(t, OwnersBPF, s.Stats().OwnerMethod)
				require.Same(t, processes, s.finder.(*bpfOwners).processes, "the cache is kept")
				require.Equal(t, closed == ClosedAuto, s.connects.isOpen())
				require.NoError(t, s.Close())
			}
		}
		require.Positive(t, withoutBPF)
		require.Positive(t, withoutConnects)
	})
}
