package procfs

import (
	"bytes"
	"fmt"
)

// ParseSockstat decodes /proc/net/sockstat, written by sockstat_seq_show (net/ipv4/proc.c), or sockstat6, written by
// sockstat6_seq_show (net/ipv6/proc.c):
//
//	TCP: inuse 7 orphan 4 tw 2 alloc 15 mem 3
//
// It calls count with each value, the name of its line and its key, such as TCP and inuse: they are not to be kept. An error of
// count is one of the value. With an error it returns the number of the line.
func ParseSockstat(content []byte, count func(name, key []byte, value uint64) error) (line int, err error) {
	for row := range bytes.Lines(content) {
		line++
		name, counts, ok := bytes.Cut(bytes.TrimSuffix(row, newline), colon)
		if !ok {
			return line, fmt.Errorf("%.100q has no colon", name)
		}
		columns := bytes.Fields(counts)
		for len(columns) > 0 {
			if len(columns) == 1 {
				return line, fmt.Errorf("%.100q has no value", columns[0])
			}
			key, text := columns[0], columns[1]
			columns = columns[2:]
			value, err := ParseCount(text)
			if err == nil {
				err = count(name, key, value)
			}
			if err != nil {
				return line, fmt.Errorf("%.100s %.100q: %w", key, text, err)
			}
		}
	}
	if line == 0 {
		return 1, ErrNoContent
	}
	return 0, nil
}
