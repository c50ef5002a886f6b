package procnetstat

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat"
)

// TestTCPDetails: without tcp_details the fields of details are absent, also where there are no connections, and nothing else
// is.
func TestTCPDetails(t *testing.T) {
	isDetail := func(field string) bool {
		for _, prefix := range []string{"tcp_rtt_", "tcp_bytes_", "tcp_segs_", "tcp_retrans_", "tcp_opened", "tcp_closed"} {
			if strings.HasPrefix(field, prefix) {
				return true
			}
		}
		return false
	}
	ofThisMoment := []string{"sockets_used", "tcp_alloc", "tcp_orphan", "tcp_mem_bytes", "udp_mem_bytes"} // and some of the whole host
	testnet.Isolate(t, func() {
		with, without := start(t, ""), start(t, "details = []")
		compare := func() {
			a, b := with.gather(), without.gather()
			for _, measurement := range []string{
				"procnetstat", "procnetstat_process", "procnetstat_listener", "procnetstat_cgroup", "procnetstat_remote",
			} {
				expected := a.all(measurement)
				for _, fields := range expected {
					details := 0
					for field := range fields {
						if isDetail(field) {
							delete(fields, field)
							details++
						}
					}
					if _, hasTCP := fields["tcp_established"]; hasTCP {
						require.Equal(t, 11, details, measurement)
					}
				}
				got := b.all(measurement)
				for _, series := range []map[string]map[string]int64{expected, got} {
					for _, fields := range series {
						for _, field := range ofThisMoment {
							delete(fields, field)
						}
					}
				}
				require.Equal(t, expected, got, measurement)
			}
		}
		compare()
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		client.Connect(listener.Local, 5)
		server.Accept(listener, 5)
		compare()
	})
}

// TestWhatIsNotNeededIsNotRead: the host measurement alone looks for no owners.
func TestWhatIsNotNeededIsNotRead(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		for options, want := range map[string]netstat.OwnerMethod{
			`measurements = ["host"]`:                          netstat.OwnersOff,
			"measurements = [\"host\"]\nowners = \"procfs\"":   netstat.OwnersOff,
			`measurements = ["host", "process"]`:               netstat.OwnersBPF,
			"measurements = [\"gather\"]\nowners = \"procfs\"": netstat.OwnersProcfs,
		} {
			l := start(t, options)
			l.gather()
			require.Equal(t, want, l.plugin.scanner.Stats().OwnerMethod, options)
		}
	})
}

// TestOwnerMethodsAgree: the series of processes are the same however the owners are found.
func TestOwnerMethodsAgree(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		client.Connect(listener.Local, 5)
		server.Accept(listener, 4)
		const options = "details = []\nprocess_tags = [\"process_name\", \"user\", \"pid\", \"exe\", \"cmdline\"]\nowners = "
		byBPF, byProcfs := start(t, options+`"bpf"`).gather(), start(t, options+`"procfs"`).gather()
		require.NotEmpty(t, byBPF.one("procnetstat_gather", "owners=bpf"))
		require.NotEmpty(t, byProcfs.one("procnetstat_gather", "owners=procfs"))
		for _, measurement := range []string{"procnetstat_process", "procnetstat_listener", "procnetstat_remote"} {
			require.Equal(t, byProcfs.all(measurement), byBPF.all(measurement), measurement)
		}
		require.EqualValues(t, 5, byBPF.one("procnetstat_process", "process_name=client")["tcp_established"])
	})
}
