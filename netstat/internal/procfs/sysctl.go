package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
)

// ParseSysctl decodes a sysctl of as many numbers as there is room for, separated by blanks: see proc_dointvec and
// proc_doulongvec_minmax (kernel/sysctl.c). A negative number counts as 0.
func ParseSysctl(content []byte, numbers []uint64) error {
	row, _, err := cutLine(content)
	if err != nil {
		return err
	}
	for i := range numbers {
		var text []byte
		text, row = cutField(row)
		if numbers[i], err = ParseCount(text); err != nil {
			return fmt.Errorf("%.100q: %w", text, err)
		}
	}
	if more, _ := cutField(row); len(more) > 0 {
		return fmt.Errorf("%.100q follows the last number", more)
	}
	return nil
}

var (
	errNoPorts = errors.New("not a range of ports")
	comma      = []byte(",")
)

// ports are a set of port numbers.
type ports [1 << 16 / 64]uint64

func (p *ports) add(port uint64) { p[port/64] |= 1 << (port % 64) }

// CountLocalPorts returns how many ports are in a range, the sysctl ip_local_port_range, without the reserved ones, the sysctl
// ip_local_reserved_ports. This is a list such as 8080,9148-9150, see proc_do_large_bitmap (kernel/sysctl.c); it may be nil.
func CountLocalPorts(portRange, reserved []byte) (uint64, error) {
	var ends [2]uint64
	if err := ParseSysctl(portRange, ends[:]); err != nil {
		return 0, err
	}
	low, high := ends[0], ends[1]
	if low > high || high >= 1<<16 {
		return 0, fmt.Errorf("%d to %d: %w", low, high, errNoPorts)
	}
	count := high - low + 1
	if reserved == nil {
		return count, nil
	}
	row, _, err := cutLine(reserved)
	if err != nil {
		return 0, err
	}
	var without ports // a list in a copy of a proc file system can name a port twice
	for len(row) > 0 {
		var element []byte
		element, row, _ = bytes.Cut(row, comma)
		first, last, err := parsePortRange(element)
		if err != nil {
			return 0, fmt.Errorf("%.100q: %w", element, err)
		}
		for port := max(first, low); port <= min(last, high); port++ {
			if without[port/64] == ^uint64(0) {
				port |= 63 // all ports of the word
				continue
			}
			without.add(port)
		}
	}
	for _, word := range without {
		count -= uint64(bits.OnesCount64(word))
	}
	return count, nil
}

// parsePortRange parses a port, or two ends with a minus between them.
func parsePortRange(text []byte) (first, last uint64, err error) {
	from, to, isRange := bytes.Cut(text, minus)
	if first, err = ParseDecimal(from, 16); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, first, nil
	}
	if last, err = ParseDecimal(to, 16); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, errNoPorts
	}
	return first, last, nil
}
