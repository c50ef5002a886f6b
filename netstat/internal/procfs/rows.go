package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// RowReader reads the tables in /proc/net, which have a header and then one row per line. It reuses its buffer.
type RowReader struct {
	buf *bufio.Reader
}

// maxRow is the limit for a line in bytes. The longest line of the kernel is that of a unix socket with a name of 108 bytes.
const maxRow = 64 << 10

var (
	errRowTooLong = fmt.Errorf("longer than %d bytes", maxRow)
	// ErrNoContent is the error of an empty file. The kernel writes at least a header.
	ErrNoContent = errors.New("file has no content")
)

// Each calls row with every line of r except the header, and its line number, until row returns false. text is valid until row
// returns. A line that is too long is passed as an error.
func (rr *RowReader) Each(r io.Reader, row func(line int, text []byte, err error) bool) error {
	if rr.buf == nil {
		rr.buf = bufio.NewReaderSize(nil, maxRow)
	}
	rr.buf.Reset(r)
	defer rr.buf.Reset(nil)
	for line := 1; ; line++ {
		text, err := rr.buf.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = rr.buf.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		last := err != nil
		switch {
		case tooLong:
			if line > 1 && !row(line, nil, errRowTooLong) {
				return nil
			}
		case len(text) == 0 && line == 1:
			return ErrNoContent
		case len(bytes.TrimSpace(text)) > 0 && line > 1:
			if !row(line, bytes.TrimSuffix(text, newline), nil) {
				return nil
			}
		}
		if last {
			return nil
		}
	}
}
