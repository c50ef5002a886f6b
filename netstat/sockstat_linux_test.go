package netstat

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// The counts follow the sockets of the namespace, and the counts of the host are present.
func TestSockstatLive(t *testing.T) {
	testnet.Isolate(t, func() {
		before, err := ReadSockstat("")
		require.NoError(t, err)
		any4, any6 := netip.AddrPort{}, netip.MustParseAddrPort("[::1]:0")
		proc := testnet.Start(t, testnet.Process{Name: "counted"})
		connectAll(proc) // three IPv4 TCP sockets
		proc.Listen("tcp6", any6, 1)
		proc.UDP("udp4", any4, any4)
		proc.UDP("udp6", any6, any4)
		after, err := ReadSockstat("")
		require.NoError(t, err)

		require.Equal(t, *before.SocketsUsed+6, *after.SocketsUsed)
		require.Equal(t, *before.TCPInUse+3, *after.TCPInUse)
		require.Equal(t, *before.TCP6InUse+1, *after.TCP6InUse)
		require.Equal(t, *before.UDPInUse+1, *after.UDPInUse)
		require.Equal(t, *before.UDP6InUse+1, *after.UDP6InUse)
		require.Zero(t, *after.TCPTimeWait)
		require.Positive(t, *after.TCPAlloc)
		for name, field := range map[string]*uint64{
			"orphan": after.TCPOrphan, "TCP mem": after.TCPMemBytes, "UDP mem": after.UDPMemBytes,
			"RAW": after.RawInUse, "RAW6": after.Raw6InUse, "FRAG": after.FragInUse, "FRAG memory": after.FragMemBytes,
			"FRAG6": after.Frag6InUse, "FRAG6 memory": after.Frag6MemBytes,
		} {
			require.NotNil(t, field, name)
		}
	})
}
