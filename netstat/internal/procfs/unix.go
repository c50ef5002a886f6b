package procfs

import (
	"bytes"
	"errors"
	"fmt"
)

// UnixRow is a row of /proc/net/unix, written by unix_seq_show (net/unix/af_unix.c):
//
//	Num RefCount Protocol Flags Type St Inode Path
type UnixRow struct {
	Flags uint32 // SOAcceptCon: listening
	State uint8  // SS_* of include/uapi/linux/net.h
	Inode uint64
}

// Values of UnixRow.
const (
	SOAcceptCon  = 1 << 16 // __SO_ACCEPTCON, include/uapi/linux/net.h
	SSConnecting = 2       // SS_CONNECTING
	SSConnected  = 3       // SS_CONNECTED
)

const unixInode = 6

// ErrNotUnixRow is the error of a line that is not the start of a row, but the rest of a name that contains a newline.
var ErrNotUnixRow = errors.New("not the beginning of a row")

// Parse decodes a row. After an error r is not valid.
func (r *UnixRow) Parse(row []byte) error {
	var columns [unixInode + 1][]byte
	n := SplitFields(row, columns[:])
	if !beginsUnixRow(columns[:n]) {
		return ErrNotUnixRow
	}
	if n <= unixInode {
		return fmt.Errorf("row %.100q has %d columns, at least %d expected", row, n, unixInode+1)
	}
	flags, err := parseHex(columns[3], 32)
	if err != nil {
		return fmt.Errorf("flags %.100q: %w", columns[3], err)
	}
	state, err := parseHex(columns[5], 8)
	if err != nil {
		return fmt.Errorf("state %.100q: %w", columns[5], err)
	}
	r.Flags, r.State = uint32(flags), uint8(state)
	if r.Inode, err = ParseDecimal(columns[unixInode], 64); err != nil {
		return fmt.Errorf("inode %.100q: %w", columns[unixInode], err)
	}
	return nil
}

// beginsUnixRow reports whether a line starts with Num, which is a pointer, and a colon. The kernel can write a word instead of
// the pointer (%pK, lib/vsprintf.c); then RefCount must follow.
func beginsUnixRow(columns [][]byte) bool {
	if len(columns) == 0 {
		return false
	}
	num, ok := bytes.CutSuffix(columns[0], colon)
	if !ok {
		return false
	}
	switch string(num) {
	case "(____ptrval____)", "(ptrval)", // before the kernel has random numbers to hash pointers; 64 and 32 bits
		"(null)":
		if len(columns) == 1 {
			return false
		}
		num = columns[1]
	}
	_, err := parseHex(num, 64)
	return err == nil
}

// ParseUnixPath returns the path in a row of /proc/net/unix, which can contain any byte except newline; empty if there is none. It
// is a part of the row.
func ParseUnixPath(row []byte) []byte {
	for range unixInode + 1 {
		row = bytes.TrimLeft(row, " ")
		end := bytes.IndexByte(row, ' ')
		if end < 0 {
			return nil
		}
		row = row[end:]
	}
	return row[1:]
}
