//go:build amd64 || arm64

package netstat

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// ownerMethods are those that a kernel of this architecture can have.
var ownerMethods = []OwnerMethod{OwnersBPF, OwnersProcfs}

// The end of the context ends the reading of what the BPF program found: see TestOwnersContextEnds.
func TestOwnerRecordsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	records := &ownerRecords{}
	require.ErrorIs(t, records.each(ctx, bytes.NewReader(nil), nil), context.Canceled)
}
