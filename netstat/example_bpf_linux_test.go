//go:build amd64 || arm64

package netstat_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat"
)

// The example of outcomes prints each failed attempt once.
func TestExampleOfOutcomes(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		scanner, err := netstat.NewScanner(netstat.ScannerConfig{
			OwnerMethod: netstat.OwnersBPF, Transports: []netstat.Transport{netstat.TransportTCP}, Closed: netstat.ClosedRequired,
		})
		require.NoError(t, err)
		defer scanner.Close()
		client := testnet.Start(t, testnet.Process{Name: "client"})
		client.Attempt(testnet.Attempts{To: netip.MustParseAddrPort("127.0.0.1:9"), N: 2})
		var out strings.Builder
		printFailedConnects(&out, scanner)
		require.Regexp(t, `^(client to 127\.0\.0\.1:9: connect refused after [0-9.]+[mµ]s\n){2}$`, out.String())
		out.Reset()
		printFailedConnects(&out, scanner)
		require.Empty(t, out.String())
	})
}
