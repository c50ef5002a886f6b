package sockdiag

import (
	"encoding/binary"
	"net/netip"
)

// The kernel runs a filter over the connections that it dumps: INET_DIAG_REQ_BYTECODE, a program of struct inet_diag_bc_op
// (include/uapi/linux/inet_diag.h), run by inet_diag_bc_run and checked by inet_diag_bc_audit (net/ipv4/inet_diag.c).
//
//	0 unsigned char code, 1 unsigned char yes, 2 unsigned short no
//
// Each operation is a condition. If it holds, the program continues "yes" bytes later, at the next operation, otherwise "no"
// bytes later. The socket is accepted if execution reaches the end of the program, and rejected if it reaches four bytes behind
// the end.
const (
	opJump       = 1 // INET_DIAG_BC_JMP: never holds
	opLocalMin   = 2 // INET_DIAG_BC_S_GE
	opLocalMax   = 3 // INET_DIAG_BC_S_LE
	opRemoteMin  = 4 // INET_DIAG_BC_D_GE
	opRemoteMax  = 5 // INET_DIAG_BC_D_LE
	opLocalHost  = 7 // INET_DIAG_BC_S_COND
	opRemoteHost = 8 // INET_DIAG_BC_D_COND

	// maxBytecode is the kernel's limit in bytes: the length of an attribute and the distance of a jump have 16 bits.
	maxBytecode = 1<<16 - 64
)

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// Conditions select the connections that meet all of them. An empty list is no condition. IPv4-mapped addresses match IPv4
// networks only.
type Conditions struct {
	LocalPorts, ExcludeLocalPorts   []PortRange
	RemotePorts, ExcludeRemotePorts []PortRange
	Remote, ExcludeRemote           []netip.Prefix
	ExcludeLocal                    []netip.Prefix
}

// Bytecode compiles the conditions for the kernel. It is nil if there are none, or if the program exceeds the kernel's limit.
func (c *Conditions) Bytecode() []byte {
	p := &program{}
	p.anyOf(hostConditions(c.Remote, opRemoteHost))
	p.noneOf(hostConditions(c.ExcludeRemote, opRemoteHost))
	p.noneOf(hostConditions(c.ExcludeLocal, opLocalHost))
	p.anyOf(portConditions(c.RemotePorts, opRemoteMin, opRemoteMax))
	p.noneOf(portConditions(c.ExcludeRemotePorts, opRemoteMin, opRemoteMax))
	p.anyOf(portConditions(c.LocalPorts, opLocalMin, opLocalMax))
	p.noneOf(portConditions(c.ExcludeLocalPorts, opLocalMin, opLocalMax))
	if p.length == 0 || p.length > maxBytecode {
		return nil
	}
	return p.bytes()
}

// program is built from its end to its start, because jumps are relative and go forward only.
type program struct {
	operations [][]byte // the last one first
	length     int
}

// label is a place in a program: its distance from the end, or reject.
type label int

const reject label = -4

// here returns the label of the operations so far.
func (p *program) here() label { return label(p.length) }

// prepend puts an operation in front of the others.
func (p *program) prepend(code byte, otherwise label, operand []byte) {
	const header = 4
	op := make([]byte, header, header+len(operand))
	op = append(op, operand...)
	p.length += len(op)
	op[0], op[1] = code, byte(len(op))
	binary.NativeEndian.PutUint16(op[2:], uint16(p.length-int(otherwise)))
	p.operations = append(p.operations, op)
}

// jump prepends a jump to the place.
func (p *program) jump(to label) {
	if to != p.here() {
		p.prepend(opJump, to, nil)
	}
}

// condition prepends the operations of a condition, which jump to otherwise if it does not hold.
type condition func(p *program, otherwise label)

// anyOf prepends code that rejects the socket unless one of the conditions holds.
func (p *program) anyOf(conditions []condition) {
	holds, otherwise := p.here(), reject
	for i := len(conditions) - 1; i >= 0; i-- {
		p.jump(holds)
		conditions[i](p, otherwise)
		otherwise = p.here()
	}
}

// noneOf prepends code that rejects the socket if one of the conditions holds.
func (p *program) noneOf(conditions []condition) {
	for i := len(conditions) - 1; i >= 0; i-- {
		next := p.here()
		p.jump(reject)
		conditions[i](p, next)
	}
}

func (p *program) bytes() []byte {
	b := make([]byte, 0, p.length)
	for i := len(p.operations) - 1; i >= 0; i-- {
		b = append(b, p.operations[i]...)
	}
	return b
}

// portConditions returns a condition for each range: the port is in it.
func portConditions(ranges []PortRange, minimum, maximum byte) []condition {
	var conditions []condition
	for _, r := range ranges {
		conditions = append(conditions, func(p *program, otherwise label) {
			p.prepend(maximum, otherwise, portOperand(r.Last))
			p.prepend(minimum, otherwise, portOperand(r.First))
		})
	}
	return conditions
}

// portOperand is a second struct inet_diag_bc_op, of which the kernel reads only the field "no".
func portOperand(port uint16) []byte {
	return binary.NativeEndian.AppendUint16([]byte{0, 0}, port)
}

// hostConditions returns a condition for each network: the address is in it.
func hostConditions(networks []netip.Prefix, host byte) []condition {
	var conditions []condition
	for _, n := range networks {
		conditions = append(conditions, func(p *program, otherwise label) {
			p.prepend(host, otherwise, hostOperand(n))
			if n.Overlaps(mappedIPv4) { // IPv4-mapped addresses match no IPv6 network
				next := p.here()
				p.jump(otherwise)
				p.prepend(host, next, hostOperand(mappedIPv4))
			}
		})
	}
	return conditions
}

// hostOperand is struct inet_diag_hostcond. The kernel also matches IPv4-mapped addresses with an IPv4 network. Port -1 is any
// port.
//
//	0 __u8 family, 1 __u8 prefix_len, 4 int port, 8 __be32 addr[]
func hostOperand(network netip.Prefix) []byte {
	family := byte(AFInet6)
	if network.Addr().Is4() {
		family = AFInet
	}
	b := []byte{family, byte(network.Bits()), 0, 0}
	b = binary.NativeEndian.AppendUint32(b, 1<<32-1)
	return append(b, network.Masked().Addr().AsSlice()...)
}

// mappedIPv4 is the network of the IPv4-mapped addresses (RFC 4291, section 2.5.5.2).
var mappedIPv4 = netip.PrefixFrom(netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff}), 96)
