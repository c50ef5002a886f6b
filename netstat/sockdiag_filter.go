package netstat

import (
	"encoding/binary"
	"net/netip"
)

// The kernel runs a filter over the connections that it dumps: INET_DIAG_REQ_BYTECODE, a program of struct inet_diag_bc_op
// (include/uapi/linux/inet_diag.h), run by inet_diag_bc_run and checked by inet_diag_bc_audit (net/ipv4/inet_diag.c).
//
// Each operation is a condition: where it holds, the program goes on at the operation behind it, where it does not, at one
// further on. To run past the end of the program by nothing accepts the socket, by four bytes rejects it.
const (
	diagReqBytecode = 1

	diagOpJump       = 1 // INET_DIAG_BC_JMP
	diagOpLocalMin   = 2 // INET_DIAG_BC_S_GE
	diagOpLocalMax   = 3 // INET_DIAG_BC_S_LE
	diagOpRemoteMin  = 4 // INET_DIAG_BC_D_GE
	diagOpRemoteMax  = 5 // INET_DIAG_BC_D_LE
	diagOpLocalHost  = 7 // INET_DIAG_BC_S_COND
	diagOpRemoteHost = 8 // INET_DIAG_BC_D_COND

	// maxBytecode is what the kernel takes: the length of an attribute and the distance of a jump have 16 bits.
	maxBytecode = 1<<16 - 64
)

// diagProgram is a filter in the making. It is made from its end to its beginning, as operations name what is behind them
// by the distance.
type diagProgram struct {
	operations [][]byte // the last one first
	length     int
}

// label is a place in a program: its distance from the end, or reject.
type label int

const reject label = -4

// here is the place in front of what there is.
func (p *diagProgram) here() label { return label(p.length) }

// put puts an operation in front of the others.
func (p *diagProgram) put(code byte, otherwise label, operand []byte) {
	const header = 4
	op := make([]byte, header, header+len(operand))
	op = append(op, operand...)
	p.length += len(op)
	op[0], op[1] = code, byte(len(op))
	binary.NativeEndian.PutUint16(op[2:], uint16(p.length-int(otherwise)))
	p.operations = append(p.operations, op)
}

// jump puts an operation that goes to the place: a condition that never holds.
func (p *diagProgram) jump(to label) {
	if to != p.here() {
		p.put(diagOpJump, to, nil)
	}
}

// condition puts the operations of one condition in front; where it does not hold, they go to otherwise.
type condition func(p *diagProgram, otherwise label)

// anyOf puts conditions of which one has to hold.
func (p *diagProgram) anyOf(conditions []condition) {
	holds, otherwise := p.here(), reject
	for i := len(conditions) - 1; i >= 0; i-- {
		p.jump(holds)
		conditions[i](p, otherwise)
		otherwise = p.here()
	}
}

// noneOf puts conditions of which none may hold.
func (p *diagProgram) noneOf(conditions []condition) {
	for i := len(conditions) - 1; i >= 0; i-- {
		next := p.here()
		p.jump(reject)
		conditions[i](p, next)
	}
}

func (p *diagProgram) bytes() []byte {
	b := make([]byte, 0, p.length)
	for i := len(p.operations) - 1; i >= 0; i-- {
		b = append(b, p.operations[i]...)
	}
	return b
}

// portConditions are that a port is in one of the ranges.
func portConditions(ranges []PortRange, minimum, maximum byte) []condition {
	var conditions []condition
	for _, r := range ranges {
		conditions = append(conditions, func(p *diagProgram, otherwise label) {
			p.put(maximum, otherwise, portOperand(r.Last))
			p.put(minimum, otherwise, portOperand(r.First))
		})
	}
	return conditions
}

// portOperand is a second operation, of which only the field no counts.
func portOperand(port uint16) []byte {
	return binary.NativeEndian.AppendUint16([]byte{0, 0}, port)
}

// hostConditions are that an address is in one of the networks.
func hostConditions(networks []netip.Prefix, host byte) []condition {
	var conditions []condition
	for _, n := range networks {
		conditions = append(conditions, func(p *diagProgram, otherwise label) {
			p.put(host, otherwise, hostOperand(n))
			if n.Overlaps(mappedIPv4) { // which is in no network of IPv6
				next := p.here()
				p.jump(otherwise)
				p.put(host, next, hostOperand(mappedIPv4))
			}
		})
	}
	return conditions
}

// hostOperand is struct inet_diag_hostcond: family, prefix_len, port, addr. An address of IPv4 also stands for the
// IPv4-mapped one. -1 stands for any port.
func hostOperand(network netip.Prefix) []byte {
	family := byte(afInet6)
	if network.Addr().Is4() {
		family = afInet
	}
	b := []byte{family, byte(network.Bits()), 0, 0}
	b = binary.NativeEndian.AppendUint32(b, 1<<32-1)
	return append(b, network.Masked().Addr().AsSlice()...)
}

// mappedIPv4 is where IPv6 has the addresses of IPv4 (RFC 4291, section 2.5.5.2).
var mappedIPv4 = netip.PrefixFrom(netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff}), 96)

var loopbackNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// bytecode returns the filter as the kernel wants it: nil if it has no conditions, and if it is longer than the kernel takes.
func (f *Filter) bytecode() []byte {
	if f.IsEmpty() {
		return nil
	}
	c, p := &f.config, &diagProgram{}
	p.anyOf(hostConditions(c.Remote, diagOpRemoteHost))
	p.noneOf(hostConditions(c.ExcludeRemote, diagOpRemoteHost))
	if c.ExcludeLoopback {
		p.noneOf(hostConditions(loopbackNetworks, diagOpRemoteHost))
		p.noneOf(hostConditions(loopbackNetworks, diagOpLocalHost))
	}
	p.anyOf(portConditions(c.RemotePorts, diagOpRemoteMin, diagOpRemoteMax))
	p.noneOf(portConditions(c.ExcludeRemotePorts, diagOpRemoteMin, diagOpRemoteMax))
	p.anyOf(portConditions(c.LocalPorts, diagOpLocalMin, diagOpLocalMax))
	p.noneOf(portConditions(c.ExcludeLocalPorts, diagOpLocalMin, diagOpLocalMax))
	if p.length > maxBytecode {
		return nil
	}
	return p.bytes()
}
