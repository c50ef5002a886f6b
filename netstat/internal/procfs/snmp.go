package procfs

import (
	"bytes"
	"errors"
	"fmt"
)

// errTruncated is the error of a last line without a line end: its last number may lack digits.
var errTruncated = errors.New("the line has no end")

// ParseSNMP decodes /proc/net/snmp, written by snmp_seq_show, or netstat, written by netstat_seq_show (net/ipv4/proc.c). Each group
// of counters is a line of keys and a line of values:
//
//	Udp: InDatagrams NoPorts InErrors
//	Udp: 47 0 0
//
// It calls place with the name of each group and each key, such as Udp and NoPorts, and with the text of the value: they are not to
// be kept. An error of place is one of the value. With an error it returns the number of the line.
func ParseSNMP(content []byte, place func(name, key, text []byte) error) (line int, err error) {
	for len(content) > 0 {
		var name, keys, again, values []byte
		line++
		if name, keys, content, err = cutGroup(content); err != nil {
			return line, err
		}
		line++
		if again, values, content, err = cutGroup(content); err != nil {
			return line, err
		}
		if !bytes.Equal(name, again) {
			return line, fmt.Errorf("%.100q follows the keys of %.100q", again, name)
		}
		for {
			var key, text []byte
			key, keys = cutField(keys)
			text, values = cutField(values)
			if len(key) == 0 && len(text) == 0 {
				break
			}
			if len(key) == 0 || len(text) == 0 {
				return line, fmt.Errorf("%.100s has not as many values as keys", name)
			}
			if err := place(name, key, text); err != nil {
				return line, fmt.Errorf("%.100s %.100s %.100q: %w", name, key, text, err)
			}
		}
	}
	if line == 0 {
		return 1, ErrNoContent
	}
	return 0, nil
}

// cutGroup cuts the first line off content, and its name off the line.
func cutGroup(content []byte) (name, columns, rest []byte, err error) {
	row, rest, err := cutLine(content)
	if err != nil {
		return nil, nil, nil, err
	}
	name, columns, ok := bytes.Cut(row, colon)
	if !ok {
		return nil, nil, nil, fmt.Errorf("%.100q has no colon", row)
	}
	return name, columns, rest, nil
}

func cutLine(content []byte) (row, rest []byte, err error) {
	row, rest, ok := bytes.Cut(content, newline)
	if !ok {
		return nil, nil, errTruncated
	}
	return row, rest, nil
}

// cutField cuts the first field off a row; it is empty if there is none.
func cutField(row []byte) (field, rest []byte) {
	start := 0
	for start < len(row) && isBlank(row[start]) {
		start++
	}
	end := start
	for end < len(row) && !isBlank(row[end]) {
		end++
	}
	return row[start:end], row[end:]
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// ParseSNMP6 decodes /proc/net/snmp6, written by snmp6_seq_show (net/ipv6/proc.c):
//
//	Udp6NoPorts                     	0
//
// It calls place with each key and the text of its value: they are not to be kept. An error of place is one of the value. With an
// error it returns the number of the line.
func ParseSNMP6(content []byte, place func(key, text []byte) error) (line int, err error) {
	for len(content) > 0 {
		line++
		var row []byte
		if row, content, err = cutLine(content); err != nil {
			return line, err
		}
		key, rest := cutField(row)
		text, _ := cutField(rest)
		if len(text) == 0 {
			return line, fmt.Errorf("%.100q has no value", key)
		}
		if err := place(key, text); err != nil {
			return line, fmt.Errorf("%.100s %.100q: %w", key, text, err)
		}
	}
	if line == 0 {
		return 1, ErrNoContent
	}
	return 0, nil
}
