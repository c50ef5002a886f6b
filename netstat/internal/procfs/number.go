package procfs

import (
	"bytes"
	"errors"
)

// The errors of numbers.
var (
	ErrSyntax = errors.New("not a number")
	ErrRange  = errors.New("out of range")
)

// SplitFields splits row at blanks into at most len(columns) columns, and returns their number.
func SplitFields(row []byte, columns [][]byte) int {
	n, i := 0, 0
	for n < len(columns) {
		for i < len(row) && row[i] == ' ' {
			i++
		}
		start := i
		for i < len(row) && row[i] != ' ' {
			i++
		}
		if start == i {
			break
		}
		columns[n] = row[start:i]
		n++
	}
	return n
}

// ParseDecimal is strconv.ParseUint(text, 10, bits) without a string.
func ParseDecimal(text []byte, bits int) (uint64, error) {
	if len(text) == 0 {
		return 0, ErrSyntax
	}
	highest := ^uint64(0) >> (64 - uint(bits))
	var v uint64
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, ErrSyntax
		}
		digit := uint64(c - '0')
		if v > (highest-digit)/10 {
			return 0, ErrRange
		}
		v = v*10 + digit
	}
	return v, nil
}

// parseHex is strconv.ParseUint(text, 16, bits) without a string.
func parseHex(text []byte, bits int) (uint64, error) {
	if len(text) == 0 {
		return 0, ErrSyntax
	}
	allButOneDigit := uint(bits) - 4
	var v uint64
	for _, c := range text {
		var digit byte
		switch {
		case c >= '0' && c <= '9':
			digit = c - '0'
		case c >= 'A' && c <= 'F':
			digit = c - 'A' + 10
		case c >= 'a' && c <= 'f':
			digit = c - 'a' + 10
		default:
			return 0, ErrSyntax
		}
		if v>>allButOneDigit != 0 {
			return 0, ErrRange
		}
		v = v<<4 | uint64(digit)
	}
	return v, nil
}

// parseInt32 parses a 32-bit number that the kernel writes with %u, or with %d: then it is negative from 2^31.
func parseInt32(text []byte) (uint32, error) {
	magnitude, isNegative := bytes.CutPrefix(text, minus)
	if !isNegative {
		v, err := ParseDecimal(text, 32)
		return uint32(v), err
	}
	v, err := ParseDecimal(magnitude, 32)
	if err == nil && (v == 0 || v > 1<<31) {
		err = ErrRange
	}
	if err != nil {
		return 0, err
	}
	return -uint32(v), nil
}

// ParseCount parses a sum of per-CPU counters, which can be negative for a moment. A negative sum counts as 0.
func ParseCount(text []byte) (uint64, error) {
	if magnitude, isNegative := bytes.CutPrefix(text, minus); isNegative {
		_, err := ParseDecimal(magnitude, 63)
		return 0, err
	}
	return ParseDecimal(text, 64)
}

var (
	minus   = []byte("-")
	colon   = []byte(":")
	newline = []byte("\n")
)
