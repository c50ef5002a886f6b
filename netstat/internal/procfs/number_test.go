package procfs

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseInt32(t *testing.T) {
	for _, test := range []struct {
		text string
		want uint32
		err  error
	}{
		{"0", 0, nil},
		{"4294967295", 1<<32 - 1, nil},
		{"-1", 1<<32 - 1, nil},
		{"-1294967296", 3000000000, nil},
		{"-2147483648", 1 << 31, nil},
		{"-2147483649", 0, ErrRange},
		{"-4294967295", 0, ErrRange},
		{"4294967296", 0, ErrRange},
		{"-0", 0, ErrRange},
		{"-", 0, ErrSyntax},
		{"--1", 0, ErrSyntax},
		{"+1", 0, ErrSyntax},
		{"-0x1", 0, ErrSyntax},
		{"", 0, ErrSyntax},
	} {
		got, err := parseInt32([]byte(test.text))
		require.ErrorIs(t, err, test.err, "%q", test.text)
		require.Equal(t, test.want, got, "%q", test.text)
	}
}

func TestParseNumbers(t *testing.T) {
	for _, test := range []struct {
		text string
		bits int
		want uint64
		err  error
	}{
		{"0", 8, 0, nil},
		{"fF", 8, 0xff, nil},
		{"00000000000000000000ff", 8, 0xff, nil},
		{"100", 8, 0, ErrRange},
		{"FFFFFFFFFFFFFFFF", 64, 1<<64 - 1, nil},
		{"10000000000000000", 64, 0, ErrRange},
		{"", 8, 0, ErrSyntax},
		{"0x1", 8, 0, ErrSyntax},
		{"+1", 8, 0, ErrSyntax},
		{"1_0", 8, 0, ErrSyntax},
		{"1G", 64, 0, ErrSyntax},
	} {
		got, err := parseHex([]byte(test.text), test.bits)
		require.ErrorIs(t, err, test.err, "hexadecimal %q, %d bits", test.text, test.bits)
		require.Equal(t, test.want, got, "hexadecimal %q, %d bits", test.text, test.bits)
	}
	for _, test := range []struct {
		text string
		bits int
		want uint64
		err  error
	}{
		{"0", 32, 0, nil},
		{"0004294967295", 32, 1<<32 - 1, nil},
		{"4294967296", 32, 0, ErrRange},
		{"2147483647", 31, 1<<31 - 1, nil},
		{"2147483648", 31, 0, ErrRange},
		{"18446744073709551615", 64, 1<<64 - 1, nil},
		{"18446744073709551616", 64, 0, ErrRange},
		{"99999999999999999999", 64, 0, ErrRange},
		{"", 32, 0, ErrSyntax},
		{"-1", 32, 0, ErrSyntax},
		{"+1", 32, 0, ErrSyntax},
		{" 1", 32, 0, ErrSyntax},
		{"a", 32, 0, ErrSyntax},
	} {
		got, err := ParseDecimal([]byte(test.text), test.bits)
		require.ErrorIs(t, err, test.err, "decimal %q, %d bits", test.text, test.bits)
		require.Equal(t, test.want, got, "decimal %q, %d bits", test.text, test.bits)
	}
}
