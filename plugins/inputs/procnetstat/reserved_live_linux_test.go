package procnetstat

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A process with a reserved name has a series of its own.
func TestReservedNames(t *testing.T) {
	testnet.Isolate(t, func() {
		for _, name := range []string{"other", "unattributed", "unknown"} {
			testnet.Start(t, testnet.Process{Name: name}).Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		}
		g := start(t, "").gather()
		for _, value := range []string{`\x6fther`, `\x75nattributed`, `\x75nknown`} {
			for _, measurement := range []string{"procnetstat_process", "procnetstat_listener"} {
				require.Equal(t, int64(1), g.one(measurement, "process_name="+value)["tcp_listen"], measurement)
			}
		}
		require.Empty(t, g.all("procnetstat_process", "process_name=other"))
		folded := start(t, "max_series = 2").gather()
		require.Len(t, folded.all("procnetstat_listener"), 2)
		require.Equal(t, int64(2), folded.one("procnetstat_listener", "process_name=other")["tcp_listen"])

		only := start(t, `process_include = ['\x6fther', "unattributed"]`)
		require.Len(t, only.gather().all("procnetstat_listener"), 1, "the filter matches the value of the tag")
	})
}
