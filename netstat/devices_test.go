package netstat

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func newDevices(diag *fakeDiag) *devices { return &devices{sockets: &netlinkSockets{diag: diag}} }

// zoned returns the addresses of a socket that is bound to a device, with their zones.
func zoned(d *devices, index uint32, local, remote string) string {
	s := Socket{Family: FamilyIPv6, Interface: index, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
	if s.Local.Addr().Is4() {
		s.Family = FamilyIPv4
	}
	d.addZones(&s)
	return fmt.Sprint(s.Local, " ", s.Remote)
}

func TestZones(t *testing.T) {
	diag := &fakeDiag{devices: map[uint32]string{2: "eth0", 3: "%a\x01\xff"}}
	for _, test := range []struct {
		name          string
		index         uint32
		local, remote string
		want          string
	}{
		{"both", 2, "[fe80::1]:1", "[fe80::2]:2", "[fe80::1%eth0]:1 [fe80::2%eth0]:2"},
		{"end of fe80::/10", 2, "[febf:ffff::1]:1", "[fec0::1]:2", "[febf:ffff::1%eth0]:1 [fec0::1]:2"},
		{"hostile name", 3, "[fe80::1]:1", "[::]:0", "[fe80::1%%a\x01\xff]:1 [::]:0"},
		{"unknown device", 1<<32 - 1, "[fe80::1]:1", "[fe80::2]:2", "[fe80::1%4294967295]:1 [fe80::2%4294967295]:2"},
		{"no device", 0, "[fe80::1]:1", "[fe80::2]:2", "[fe80::1]:1 [fe80::2]:2"},
		{"global", 2, "[2001:db8::1]:1", "[fd00::2]:2", "[2001:db8::1]:1 [fd00::2]:2"},
		{"link-local multicast", 2, "[ff02::1]:1", "[::1]:0", "[ff02::1]:1 [::1]:0"},
		{"IPv4", 2, "169.254.0.1:1", "169.254.0.2:2", "169.254.0.1:1 169.254.0.2:2"},
		{"IPv4-mapped", 2, "[::ffff:169.254.0.1]:1", "[::ffff:169.254.0.2]:2", "[::ffff:169.254.0.1]:1 [::ffff:169.254.0.2]:2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, zoned(newDevices(diag), test.index, test.local, test.remote))
		})
	}
	require.Equal(t, "[fe80::1]:1 [fe80::2]:2", zoned(nil, 2, "[fe80::1]:1", "[fe80::2]:2"))
}

// Each scan looks up a device once. A name changes with the next scan, and outlives the device only while scans ask for it.
func TestDeviceNames(t *testing.T) {
	diag := &fakeDiag{devices: map[uint32]string{2: "eth0", 3: "eth1"}}
	d := newDevices(diag)
	nameIs := func(index uint32, want string) {
		t.Helper()
		n := &Namespace{devices: d}
		require.Equal(t, want, n.InterfaceName(index))
		zone := want
		if want == "" {
			zone = strconv.FormatUint(uint64(index), 10)
		}
		require.Equal(t, fmt.Sprintf("[fe80::1%%%s]:1 [::]:0", zone), zoned(d, index, "[fe80::1]:1", "[::]:0"))
	}
	for range 3 {
		d.nextScan()
		asked := diag.devicesAsked
		for range 3 {
			nameIs(2, "eth0")
			nameIs(3, "eth1")
			nameIs(4, "")
		}
		require.Equal(t, 3, diag.devicesAsked-asked)
	}
	diag.devices = map[uint32]string{2: "lan", 4: "new"}
	nameIs(2, "eth0") // the same scan
	d.nextScan()
	nameIs(2, "lan")
	nameIs(3, "eth1")
	nameIs(4, "new")
	d.nextScan()
	nameIs(3, "eth1")
	d.nextScan() // asks for nothing
	require.Len(t, d.byIndex, 1)
	d.nextScan()
	nameIs(3, "")
	nameIs(2, "lan")
	d.sockets.diag = nil // the namespace has ended
	d.nextScan()
	nameIs(2, "lan")
	nameIs(5, "")

	require.Empty(t, (&Namespace{}).InterfaceName(2))
	require.Empty(t, (&Namespace{devices: d}).InterfaceName(0))
}

// A steady scan allocates nothing for its link-local addresses.
func TestZonesAllocateNothing(t *testing.T) {
	d := newDevices(&fakeDiag{devices: map[uint32]string{2: "eth0"}})
	s := Socket{Family: FamilyIPv6, Interface: 2}
	link := [2]netip.AddrPort{netip.MustParseAddrPort("[fe80::1]:1"), netip.MustParseAddrPort("[fe80::2]:2")}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		d.nextScan()
		for range 10 {
			s.Local, s.Remote = link[0], link[1]
			d.addZones(&s)
		}
	}))
	require.Equal(t, "eth0", s.Remote.Addr().Zone())
}

// A filter ignores zones: its networks have none.
func TestFilterMatchesZonedAddresses(t *testing.T) {
	s := Socket{
		Transport: TransportTCP, Family: FamilyIPv6, State: TCPEstablished,
		Local: netip.MustParseAddrPort("[fe80::1%eth0]:80"), Remote: netip.MustParseAddrPort("[fe80::2%eth0]:1024"),
	}
	for network, want := range map[string]bool{"fe80::/10": true, "fe80::2/128": true, "fe80::1/128": false, "::/0": true} {
		require.Equal(t, want, newFilter(t, FilterConfig{Remote: networks(network)}).Match(&s), network)
		require.Equal(t, !want, newFilter(t, FilterConfig{ExcludeRemote: networks(network)}).Match(&s), network)
	}
}
