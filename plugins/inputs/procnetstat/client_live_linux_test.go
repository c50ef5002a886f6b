package procnetstat

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Clients are the other ends of incoming connections, by listening port and network.
func TestClients(t *testing.T) {
	testnet.Isolate(t, func() {
		server := testnet.Start(t, testnet.Process{Name: "server"})
		client := testnet.Start(t, testnet.Process{Name: "client"})
		want := map[string]int64{}
		for network, test := range map[string]struct{ address, prefix string }{
			"tcp4": {"127.0.0.1", "127.0.0.0/24"}, "tcp6": {"::1", "::/48"}, "tcp4in6": {"127.0.0.2", "127.0.0.0/24"},
		} {
			listener := server.Listen(network, netip.AddrPort{}, 16)
			to := netip.AddrPortFrom(netip.MustParseAddr(test.address), listener.Local.Port())
			client.Connect(to, 7)
			server.Accept(listener, 5)
			want[fmt.Sprintf("client_address=%s,local_port=%d,process_name=server,protocol=tcp", test.prefix, to.Port())] = 7
		}
		for _, source := range []string{"netlink", "procfs"} {
			g := start(t, fmt.Sprintf("source = %q\nmeasurements = [\"client\"]", source)).gather()
			got := map[string]int64{}
			for tags, fields := range g.all("procnetstat_client") {
				got[tags] = fields["tcp_established"]
				require.NotContains(t, fields, "accept_queue")
			}
			require.Equal(t, want, got, source)
		}
		whole := start(t, "measurements = [\"client\"]\nclient_prefix_v4 = 32\nclient_prefix_v6 = 128").gather()
		require.Len(t, whole.all("procnetstat_client", "client_address=127.0.0.1"), 2)
		require.Len(t, whole.all("procnetstat_client", "client_address=::1"), 1)
	})
}

// Connections between processes of the host have the names of both ends, in each namespace.
func TestBothEnds(t *testing.T) {
	testnet.Isolate(t, func() {
		postgres := testnet.Start(t, testnet.Process{Name: "postgres"})
		app := testnet.Start(t, testnet.Process{Name: "app"})
		to := postgres.Listen("tcp4in6", netip.AddrPort{}, 16).Local.Port()
		at := func(address string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(address), to) }
		app.Connect(at("127.0.0.1"), 3)
		app.Connect(at("::1"), 2)
		bound := postgres.UDP("udp4", netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{})
		app.UDP("udp4", netip.AddrPort{}, bound.Local)
		for _, source := range []string{"netlink", "procfs"} {
			g := start(t, fmt.Sprintf("source = %q\nmeasurements = [\"remote\"]", source)).gather()
			named := g.all("procnetstat_remote", "process_name=app", "remote_process_name=postgres")
			require.Len(t, named, 3, source)
			require.Equal(t, named, g.all("procnetstat_remote"))
		}
		without := start(t, "measurements = [\"remote\"]\nowners = \"none\"").gather()
		require.Empty(t, without.all("procnetstat_remote", "remote_process_name=postgres"))
		networks := start(t, "measurements = [\"remote\"]\nremote_prefix_v4 = 24").gather()
		require.Len(t, networks.all("procnetstat_remote", "remote_process_name=postgres"), 1, "that of IPv6")
	})
}
