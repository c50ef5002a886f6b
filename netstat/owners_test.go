package netstat

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

// refusedFinder finds owners until it is no longer permitted.
type refusedFinder struct {
	err      error
	asked    int
	isClosed bool
}

func (f *refusedFinder) refresh(_ context.Context, table *ownerTable) (ownerStats, error) {
	f.asked++
	table.clear()
	return ownerStats{processes: 99, denied: 99}, f.err
}

func (f *refusedFinder) close() { f.isClosed = true }

// If an owner method is no longer permitted, the same scan falls back to procfs. Any other failure is an error of that scan.
func TestScannerFallsBackFromBPF(t *testing.T) {
	unsupported := fmt.Errorf("starting it: %w: not permitted", errors.ErrUnsupported)
	failed := errors.New("out of memory")
	for name, test := range map[string]struct {
		method    OwnerMethod
		err       error
		fallsBack bool
	}{
		"unsupported":      {OwnersBPF, unsupported, true},
		"failed":           {OwnersBPF, failed, false},
		"there is no next": {OwnersProcfs, unsupported, false},
		"required":         {OwnersBPF, unsupported, false},
	} {
		t.Run(name, func(t *testing.T) {
			finder := &refusedFinder{err: test.err}
			var warnings []string
			s := newScanner(t, ScannerConfig{
				ProcRoot: proctree.Materialize(t, smallTree), Warn: func(err error) { warnings = append(warnings, err.Error()) },
			})
			s.finder.close()
			s.finder, s.stats.OwnerMethod = finder, test.method
			if name == "required" {
				s.config.OwnerMethod = OwnersBPF
			}
			for range 3 {
				_, errs := scan(s, func(s *Socket) struct{} {
					if s.Inode == 20020 {
						require.Equal(t, test.fallsBack, len(s.Owners()) == 2)
					}
					return struct{}{}
				})
				if test.fallsBack {
					require.Empty(t, errs)
					require.Equal(t, OwnersProcfs, s.Stats().OwnerMethod)
					require.Equal(t, 7, s.Stats().Processes)
					require.Zero(t, s.Stats().Denied)
				} else {
					require.Equal(t, []error{test.err}, errs)
					require.Equal(t, test.method, s.Stats().OwnerMethod)
				}
			}
			require.Equal(t, test.fallsBack, finder.isClosed)
			if test.fallsBack {
				require.Equal(t, 1, finder.asked)
				require.Equal(t, []string{
					"BPF owner lookup unavailable (starting it: unsupported operation: not permitted); falling back to /proc, which costs more",
				}, warnings)
			} else {
				require.Equal(t, 3, finder.asked)
				require.Empty(t, warnings)
			}
		})
	}
}
