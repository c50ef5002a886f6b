package procfs

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// numberedRow holds the arguments of a call by RowReader.
type numberedRow struct {
	line int
	text string
	err  error
}

func readRows(rr *RowReader, r io.Reader) (rows []numberedRow, err error) {
	err = rr.Each(r, func(line int, text []byte, err error) bool {
		rows = append(rows, numberedRow{line, string(text), err})
		return true
	})
	return rows, err
}

func TestRowReader(t *testing.T) {
	long, longest := strings.Repeat("x", maxRow), strings.Repeat("x", maxRow-1)
	for name, test := range map[string]struct {
		content string
		want    []numberedRow
		err     error
	}{
		"empty":                   {"", nil, ErrNoContent},
		"header":                  {"header\n", nil, nil},
		"header without newline":  {"header", nil, nil},
		"empty header":            {"\na\n", []numberedRow{{2, "a", nil}}, nil},
		"rows":                    {"header\n a \nb\n", []numberedRow{{2, " a ", nil}, {3, "b", nil}}, nil},
		"no newline at the end":   {"header\na\nb", []numberedRow{{2, "a", nil}, {3, "b", nil}}, nil},
		"empty rows":              {"header\n\na\n  \t\n\nb\n\n", []numberedRow{{3, "a", nil}, {6, "b", nil}}, nil},
		"longest row":             {"header\n" + longest + "\nb\n", []numberedRow{{2, longest, nil}, {3, "b", nil}}, nil},
		"row too long":            {"header\n" + long + "\nb\n", []numberedRow{{2, "", errRowTooLong}, {3, "b", nil}}, nil},
		"several buffers":         {"header\n" + long + long + long + "y\nb\n", []numberedRow{{2, "", errRowTooLong}, {3, "b", nil}}, nil},
		"too long at the end":     {"header\na\n" + long + "y", []numberedRow{{2, "a", nil}, {3, "", errRowTooLong}}, nil},
		"header too long":         {long + "\na\n", []numberedRow{{2, "a", nil}}, nil},
		"carriage return and NUL": {"header\na\r\n\x00\n", []numberedRow{{2, "a\r", nil}, {3, "\x00", nil}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var rr RowReader
			for range 2 { // it can be reused
				for _, r := range []io.Reader{strings.NewReader(test.content), iotest.OneByteReader(strings.NewReader(test.content))} {
					rows, err := readRows(&rr, r)
					require.ErrorIs(t, err, test.err)
					require.Equal(t, test.want, rows)
				}
			}
		})
	}
}

func TestRowReaderStops(t *testing.T) {
	for _, last := range []string{"b", strings.Repeat("x", maxRow)} {
		var lines []int
		err := new(RowReader).Each(strings.NewReader("header\na\n"+last+"\nc\n"), func(line int, _ []byte, _ error) bool {
			lines = append(lines, line)
			return line < 3
		})
		require.NoError(t, err)
		require.Equal(t, []int{2, 3}, lines)
	}
}

func TestRowReaderError(t *testing.T) {
	broken := errors.New("broken")
	var rr RowReader
	rows, err := readRows(&rr, io.MultiReader(strings.NewReader("header\na\nb"), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	require.Equal(t, []numberedRow{{2, "a", nil}}, rows, "an incomplete row")
}

// FuzzRowReader compares with a simple line reader.
func FuzzRowReader(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte, repeat uint16) {
		// A fuzzer does not reach long lines.
		if at := bytes.IndexByte(content, '*'); at >= 0 {
			content = bytes.Join([][]byte{content[:at], bytes.Repeat([]byte("long "), int(repeat)), content[at:]}, nil)
		}
		var want []numberedRow
		lines := bytes.SplitAfter(content, []byte("\n"))
		for i, line := range lines {
			text := bytes.TrimSuffix(line, []byte("\n"))
			switch {
			case i == 0:
			case len(text) == maxRow && len(line) == maxRow:
				return // whether EOF is seen depends on the reader
			case len(line) > maxRow:
				want = append(want, numberedRow{i + 1, "", errRowTooLong})
			case len(bytes.TrimSpace(text)) > 0:
				want = append(want, numberedRow{i + 1, string(text), nil})
			}
		}
		for _, r := range []io.Reader{bytes.NewReader(content), iotest.HalfReader(bytes.NewReader(content)), iotest.DataErrReader(bytes.NewReader(content))} {
			rows, err := readRows(&RowReader{}, r)
			if len(content) == 0 {
				require.ErrorIs(t, err, ErrNoContent)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, want, rows)
		}
	})
}
