package procfs

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSysctl(t *testing.T) {
	numbers := make([]uint64, 3)
	require.NoError(t, ParseSysctl([]byte("287892\t383858\t18446744073709551615\n"), numbers))
	require.Equal(t, []uint64{287892, 383858, 1<<64 - 1}, numbers)
	require.NoError(t, ParseSysctl([]byte("-1\n"), numbers[:1]))
	require.Zero(t, numbers[0], "less than none")

	for content, want := range map[string]string{
		"":                           "the line has no end",
		"1 2 3":                      "the line has no end",
		"\n":                         `"": not a number`,
		"1\t2\n":                     `"": not a number`,
		"1\t2\tx\n":                  `"x": not a number`,
		"1\t2\t3\t4\n":               `"4" follows the last number`,
		"18446744073709551616 1 1\n": `"18446744073709551616": out of range`,
	} {
		require.EqualError(t, ParseSysctl([]byte(content), numbers), want, "%q", content)
	}
}

func TestCountLocalPorts(t *testing.T) {
	for _, test := range []struct {
		portRange, reserved string
		want                uint64
	}{
		{"32768\t60999\n", "\n", 28232},
		{"32768\t60999\n", "8080\n", 28232},
		{"32768\t60999\n", "32768\n", 28231},
		{"32768\t60999\n", "8080,32767-32769,60999-65535\n", 28229},
		{"32768\t60999\n", "1-65535\n", 0},
		{"32768\t60999\n", "40000,40000,39999-40001\n", 28229},
		{"0\t65535\n", "0,65535\n", 65534},
		{"5000\t5000\n", "\n", 1},
	} {
		count, err := CountLocalPorts([]byte(test.portRange), []byte(test.reserved))
		require.NoError(t, err, "%q", test)
		require.Equal(t, test.want, count, "%q", test)
	}
	count, err := CountLocalPorts([]byte("1024\t1033\n"), nil)
	require.NoError(t, err)
	require.EqualValues(t, 10, count, "without a file of reserved ports")

	for _, test := range []struct{ portRange, reserved, want string }{
		{"", "\n", "the line has no end"},
		{"1\n", "\n", `"": not a number`},
		{"2\t1\n", "\n", "2 to 1: not a range of ports"},
		{"1\t65536\n", "\n", "1 to 65536: not a range of ports"},
		{"1\t2\n", "80", "the line has no end"},
		{"1\t2\n", "\n", ""},
		{"1\t2\n", ",\n", `"": not a number`},
		{"1\t2\n", "80,\n", ""},
		{"1\t2\n", "80,9-\n", `"9-": not a number`},
		{"1\t2\n", "-9\n", `"-9": not a number`},
		{"1\t2\n", "9-8\n", `"9-8": not a range of ports`},
		{"1\t2\n", "65536\n", `"65536": out of range`},
		{"1\t2\n", "1-65536\n", `"1-65536": out of range`},
	} {
		_, err := CountLocalPorts([]byte(test.portRange), []byte(test.reserved))
		if test.want == "" {
			require.NoError(t, err, "%q", test)
			continue
		}
		require.EqualError(t, err, test.want, "%q", test)
	}
}

// An error, or numbers.
func FuzzParseSysctl(f *testing.F) {
	f.Add([]byte("287892\t383858\t575784\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		var numbers [3]uint64
		if ParseSysctl(content, numbers[:]) != nil {
			return
		}
		for range numbers {
			var text []byte
			text, content = cutField(content)
			require.NotEmpty(t, text)
		}
	})
}

// An error, or no more ports than there are, and no more than without reserved ones.
func FuzzCountLocalPorts(f *testing.F) {
	f.Add([]byte("32768\t60999\n"), []byte("8080,9148-9150\n"))
	f.Fuzz(func(t *testing.T, portRange, reserved []byte) {
		count, err := CountLocalPorts(portRange, reserved)
		if err != nil {
			require.Zero(t, count)
			return
		}
		all, err := CountLocalPorts(portRange, nil)
		require.NoError(t, err)
		require.LessOrEqual(t, all, uint64(1<<16))
		require.LessOrEqual(t, count, all)
	})
}
