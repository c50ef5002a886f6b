//go:build linux

package procnetstat

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

func TestPortFilter(t *testing.T) {
	for name, test := range map[string]struct {
		include, exclude []ports
		want, not        []uint16
	}{
		"no option": {nil, nil, []uint16{0, 80, 65535}, nil},
		"one":       {[]ports{"80"}, nil, []uint16{80}, []uint16{0, 79, 81, 65535}},
		"range":     {[]ports{"63-128"}, nil, []uint16{63, 64, 127, 128}, []uint16{62, 129}},
		"all":       {[]ports{"0-65535"}, nil, []uint16{0, 65535}, nil},
		"blanks":    {[]ports{" 80 - 81 "}, nil, []uint16{80, 81}, []uint16{79, 82}},
		"but one":   {nil, []ports{"65535"}, []uint16{0, 65534}, []uint16{65535}},
		"none":      {nil, []ports{"0-65535"}, nil, []uint16{0, 80, 65535}},
		"both":      {[]ports{"8000-8100", "22"}, []ports{"8050-8060", "23"}, []uint16{22, 8000, 8049, 8061, 8100}, []uint16{23, 8050, 8060}},
	} {
		t.Run(name, func(t *testing.T) {
			plugin := newPlugin()
			plugin.LocalPortsInclude, plugin.LocalPortsExclude = test.include, test.exclude
			require.NoError(t, plugin.Init())
			wants := func(port uint16) bool {
				return plugin.filters.socket.wants(&observation{Socket: &netstat.Socket{
					Transport: netstat.TransportTCP, Local: netip.AddrPortFrom(netip.IPv4Unspecified(), port),
				}})
			}
			for _, port := range test.want {
				require.True(t, wants(port), port)
			}
			for _, port := range test.not {
				require.False(t, wants(port), port)
			}
		})
	}
}

// FuzzParsePorts: an error or a range, never both, and the range is the one that the text means.
func FuzzParsePorts(f *testing.F) {
	for _, text := range []string{"80", "0-65535", "90-80", "65536", "-", "1-", "-1", "+1", "0x50", "80-90-100", "", "\u30002", " 1 - 2 "} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ranges, err := parsePorts("ports", []ports{ports(text)})
		if err != nil {
			require.Empty(t, ranges)
			return
		}
		require.Len(t, ranges, 1)
		require.LessOrEqual(t, ranges[0].First, ranges[0].Last)
		numbers := strings.FieldsFunc(text, func(r rune) bool { return r == '-' || unicode.IsSpace(r) })
		require.Contains(t, []int{1, 2}, len(numbers), "%q", text)
		for i, want := range []uint16{ranges[0].First, ranges[0].Last} {
			got, err := strconv.ParseUint(numbers[min(i, len(numbers)-1)], 10, 16)
			require.NoError(t, err, "%q", text)
			require.EqualValues(t, want, got, "%q", text)
		}
	})
}

func TestSocketFilter(t *testing.T) {
	const web, client = "192.0.2.1:80", "10.1.2.3:50000"
	for name, test := range map[string]struct {
		filter        string
		local, remote string
		want          bool
	}{
		"no filter":                   {``, web, client, true},
		"local port":                  {`local_ports_include = ["80"]`, web, client, true},
		"other local port":            {`local_ports_include = ["81"]`, web, client, false},
		"remote port":                 {`remote_ports_exclude = ["50000"]`, web, client, false},
		"remote port of a listener":   {`remote_ports_include = ["1"]`, web, "0.0.0.0:0", true},
		"network":                     {`remote_cidrs_include = ["10.0.0.0/8"]`, web, client, true},
		"network, mapped":             {`remote_cidrs_include = ["10.0.0.0/8"]`, "[::ffff:192.0.2.1]:80", "[::ffff:10.1.2.3]:50000", true},
		"other network":               {`remote_cidrs_include = ["10.2.0.0/16", "2001:db8::/32"]`, web, client, false},
		"network of one":              {`remote_cidrs_exclude = ["10.1.2.3"]`, web, client, false},
		"network of one, mapped":      {`remote_cidrs_exclude = ["::ffff:10.1.2.3"]`, web, client, false},
		"hole in a network":           {"remote_cidrs_include = [\"10.0.0.0/8\"]\nremote_cidrs_exclude = [\"10.1.2.0/24\"]", web, client, false},
		"network of a listener":       {`remote_cidrs_include = ["10.0.0.0/8"]`, web, "0.0.0.0:0", true},
		"IPv6":                        {`remote_cidrs_exclude = ["2001:db8::/32"]`, "[2001:db8::1]:80", "[2001:db8::2]:1", false},
		"link-local with a zone":      {`remote_cidrs_include = ["fe80::/10"]`, "[fe80::1]:80", "[fe80::2]:1", true},
		"loopback":                    {`exclude_loopback = true`, "127.0.0.1:80", "127.0.0.1:50000", false},
		"loopback, mapped":            {`exclude_loopback = true`, "[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:1", false},
		"loopback, IPv6":              {`exclude_loopback = true`, "[::1]:80", "[::]:0", false},
		"loopback, another of 127/8":  {`exclude_loopback = true`, "127.9.9.9:80", "0.0.0.0:0", false},
		"no loopback":                 {`exclude_loopback = true`, web, client, true},
		"wildcard is no loopback":     {`exclude_loopback = true`, "0.0.0.0:80", "0.0.0.0:0", true},
		"unattributed cgroup":         {`cgroup_include = ["unattributed"]`, web, client, true},
		"unattributed cgroup, not in": {`cgroup_include = ["/system.slice/*"]`, web, client, false},
	} {
		t.Run(name, func(t *testing.T) {
			plugin := configure(t, test.filter)
			require.NoError(t, plugin.Init())
			o := &observation{Socket: &netstat.Socket{
				Transport: netstat.TransportTCP,
				Local:     netip.MustParseAddrPort(test.local), Remote: netip.MustParseAddrPort(test.remote),
			}}
			require.Equal(t, test.want, plugin.filters.socket.wants(o))
		})
	}
}

// TestUnixSocketsHaveNoAddresses: filters by address let them through.
func TestUnixSocketsHaveNoAddresses(t *testing.T) {
	plugin := configure(t, `
		local_ports_include = ["80"]
		remote_ports_include = ["80"]
		remote_cidrs_include = ["10.0.0.0/8"]
		exclude_loopback = true`)
	require.NoError(t, plugin.Init())
	o := &observation{Socket: &netstat.Socket{Transport: netstat.TransportUnix, Family: netstat.FamilyUnix}}
	require.True(t, plugin.filters.socket.wants(o))
}

// A network has no zone: an address with one is not taken without it.
func TestPrefixWithZone(t *testing.T) {
	for _, text := range []string{"fe80::1%eth0", "fe80::%eth0/64"} {
		_, err := parsePrefixes("remote_cidrs_include", []string{text})
		require.ErrorContains(t, err, "remote_cidrs_include: \""+text+"\"")
	}
}
