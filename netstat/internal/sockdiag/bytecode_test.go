package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// accepts runs a program for a connection like inet_diag_bc_run (net/ipv4/inet_diag.c). Like inet_diag_bc_audit it requires that
// every jump leads to an operation, to the end, or four bytes after it.
func accepts(t *testing.T, program []byte, local, remote netip.AddrPort) bool {
	t.Helper()
	no := func(at int) int { return int(binary.NativeEndian.Uint16(program[at+2:])) }
	starts := map[int]bool{len(program): true, len(program) + 4: true}
	for at := 0; at < len(program); at += int(program[at+1]) {
		starts[at] = true
	}
	for at := 0; at < len(program); {
		if !starts[at] || !starts[at+no(at)] || no(at) == 0 {
			t.Fatalf("the operation at %d jumps to %d", at, at+no(at))
		}
		holds := false
		switch code := program[at]; code {
		case 1: // INET_DIAG_BC_JMP
		case 2:
			holds = int(local.Port()) >= no(at+4)
		case 3:
			holds = int(local.Port()) <= no(at+4)
		case 4:
			holds = int(remote.Port()) >= no(at+4)
		case 5:
			holds = int(remote.Port()) <= no(at+4)
		case 7:
			holds = hostHolds(t, program[at+4:at+int(program[at+1])], local.Addr())
		case 8:
			holds = hostHolds(t, program[at+4:at+int(program[at+1])], remote.Addr())
		default:
			require.Failf(t, "no such operation", "%d", code)
		}
		if holds {
			at += int(program[at+1])
		} else {
			at += no(at)
		}
		if at > len(program) {
			return false
		}
	}
	return true
}

// hostHolds evaluates a struct inet_diag_hostcond for an address. IPv4 bits also match an IPv4-mapped address.
func hostHolds(t *testing.T, condition []byte, addr netip.Addr) bool {
	t.Helper()
	require.Equal(t, uint32(1<<32-1), binary.NativeEndian.Uint32(condition[4:]), "any port")
	bits := addr.AsSlice()
	switch family := condition[0]; {
	case family == AFInet && addr.Is4In6():
		bits = bits[12:]
	case family == AFInet && addr.Is4(), family == AFInet6 && addr.Is6():
	default:
		return false
	}
	require.Len(t, condition[8:], len(bits))
	network, ok := netip.AddrFromSlice(condition[8:])
	require.True(t, ok)
	is, ok := netip.AddrFromSlice(bits)
	require.True(t, ok)
	return netip.PrefixFrom(network, int(condition[1])).Masked().Contains(is)
}

func networks(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestBytecode(t *testing.T) {
	connections := map[string][2]string{
		"web":    {"10.0.0.1:80", "10.0.0.2:40000"},
		"mapped": {"[::ffff:10.0.0.1]:4000", "[::ffff:10.0.0.3]:443"},
		"v6":     {"[2001:db8::1]:5001", "[2001:db8::2]:444"},
		"local":  {"127.0.0.1:6000", "127.1.2.3:6001"},
		"local6": {"[::1]:6000", "[::1]:6001"},
	}
	for _, test := range []struct {
		name       string
		conditions Conditions
		want       []string
	}{
		{"a local port", Conditions{LocalPorts: []PortRange{{80, 80}}}, []string{"web"}},
		{"local ports", Conditions{LocalPorts: []PortRange{{80, 80}, {5000, 5001}}}, []string{"web", "v6"}},
		{"not local ports", Conditions{ExcludeLocalPorts: []PortRange{{0, 79}, {81, 65535}}}, []string{"web"}},
		{"remote ports", Conditions{RemotePorts: []PortRange{{443, 444}}}, []string{"mapped", "v6"}},
		{"bounds", Conditions{RemotePorts: []PortRange{{444, 6000}, {6002, 65535}, {1, 442}}}, []string{"web", "v6"}},
		{"not a remote port", Conditions{ExcludeRemotePorts: []PortRange{{443, 443}}}, []string{"web", "v6", "local", "local6"}},
		{"both", Conditions{RemotePorts: []PortRange{{400, 500}}, ExcludeRemotePorts: []PortRange{{444, 444}}}, []string{"mapped"}},
		{"a network", Conditions{Remote: networks("10.0.0.0/8")}, []string{"web", "mapped"}},
		{"networks", Conditions{Remote: networks("10.0.0.2/32", "2001:db8::2/128")}, []string{"web", "v6"}},
		{"not networks", Conditions{ExcludeRemote: networks("10.0.0.2/31", "2001:db8::/32")}, []string{"local", "local6"}},
		{"host bits", Conditions{Remote: networks("10.0.0.1/30", "2001:db8::ff/64")}, []string{"web", "mapped", "v6"}},
		{"all of IPv4", Conditions{Remote: networks("0.0.0.0/0")}, []string{"web", "mapped", "local"}},
		{"all of IPv6", Conditions{Remote: networks("::/0")}, []string{"v6", "local6"}},
		{"not all of IPv6", Conditions{ExcludeRemote: networks("::/0")}, []string{"web", "mapped", "local"}},
		{"not a local address", Conditions{ExcludeLocal: networks("10.0.0.1/32")}, []string{"v6", "local", "local6"}},
		{"not local addresses", Conditions{ExcludeLocal: networks("127.0.0.0/8", "::1/128")}, []string{"web", "mapped", "v6"}},
		{"every condition", Conditions{
			LocalPorts: []PortRange{{1, 65535}}, ExcludeLocalPorts: []PortRange{{80, 80}},
			RemotePorts: []PortRange{{443, 444}}, ExcludeRemotePorts: []PortRange{{444, 444}},
			Remote: networks("10.0.0.0/8", "::/0"), ExcludeRemote: networks("10.0.0.2/32"), ExcludeLocal: networks("::1/128"),
		}, []string{"mapped"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			program := test.conditions.Bytecode()
			require.NotEmpty(t, program)
			require.Zero(t, len(program)%4, "required by inet_diag_bc_audit")
			var got []string
			for name, ends := range connections {
				if accepts(t, program, netip.MustParseAddrPort(ends[0]), netip.MustParseAddrPort(ends[1])) {
					got = append(got, name)
				}
			}
			require.ElementsMatch(t, test.want, got)
		})
	}
}

// There is no bytecode for empty conditions, nor for conditions that are too long for the kernel.
func TestBytecodeBounds(t *testing.T) {
	require.Nil(t, (&Conditions{}).Bytecode())
	var c Conditions
	for port := range uint16(5000) {
		c.LocalPorts = append(c.LocalPorts, PortRange{2 * port, 2 * port})
	}
	require.Nil(t, c.Bytecode())
	c.LocalPorts = c.LocalPorts[:3000]
	program := c.Bytecode()
	require.NotEmpty(t, program)
	require.LessOrEqual(t, len(program), maxBytecode)
	remote := netip.MustParseAddrPort("10.0.0.2:1")
	for port, want := range map[uint16]bool{0: true, 1: false, 5998: true, 5999: false, 6000: false} {
		require.Equal(t, want, accepts(t, program, netip.AddrPortFrom(remote.Addr(), port), remote), port)
	}
	const jump, ends = 4, 2 * 8 // bytes of a port range
	longest := (maxBytecode + jump) / (jump + ends)
	c.LocalPorts = make([]PortRange, longest+1)
	require.Nil(t, c.Bytecode())
	c.LocalPorts = c.LocalPorts[:longest]
	require.Len(t, c.Bytecode(), longest*(jump+ends)-jump)
}
