package testnet

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// stateNames are the states of include/net/tcp_states.h.
var stateNames = [...]string{
	1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT", 7: "CLOSE",
	8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "NEW_SYN_RECV",
}

// readProcNet reads the sockets of a protocol in the namespace of this process. It shares no code with the library under test, so
// that a load can be checked independently.
func readProcNet(protocol string) ([]Socket, error) {
	file := "/proc/self/net/" + protocol
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var sockets []Socket
	for _, line := range lines[1:] {
		s, err := parseProcNet(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		s.Protocol = protocol
		sockets = append(sockets, s)
	}
	return sockets, nil
}

func parseProcNet(line string) (Socket, error) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return Socket{}, fmt.Errorf("%d fields", len(fields))
	}
	var s Socket
	var p numbers
	s.Local, s.Remote = p.address(fields[1]), p.address(fields[2])
	if state := p.parse(fields[3], 16); state < uint64(len(stateNames)) {
		s.State = stateNames[state]
	}
	tx, rx, _ := strings.Cut(fields[4], ":")
	s.SendQ, s.RecvQ = uint32(p.parse(tx, 16)), uint32(p.parse(rx, 16))
	s.UID, s.Inode = uint32(p.parse(fields[7], 10)), p.parse(fields[9], 10)
	if len(fields) == 13 { // not TCP
		s.Drops = uint32(p.parse(fields[12], 10))
	}
	return s, p.err
}

// address parses an address of /proc/net, which is printed as 32-bit numbers in native byte order.
func (p *numbers) address(text string) netip.AddrPort {
	host, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	if p.err == nil {
		p.err = err
	}
	for word := b; len(word) >= 4; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(p.parse(port, 16)))
}
