package sockdiag

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

var attribute, u32s, answer = sockdiagtest.Attribute, sockdiagtest.Uint32s, sockdiagtest.Answer

// readAttributes returns the types and values of all attributes.
func readAttributes(attributes Attributes) (types []uint16, values []string, err error) {
	for attributes.Next() {
		types, values = append(types, attributes.Type), append(values, string(attributes.Value))
	}
	return types, values, attributes.Err()
}

func TestAttributes(t *testing.T) {
	one, two := attribute(1, []byte("one")), attribute(2, []byte("two!"))
	for _, test := range []struct {
		name   string
		b      []byte
		types  []uint16
		values []string
		short  bool
	}{
		{name: "none"},
		{name: "two", b: append(bytes.Clone(one), two...), types: []uint16{1, 2}, values: []string{"one", "two!"}},
		{name: "no value", b: attribute(7, nil), types: []uint16{7}, values: []string{""}},
		{name: "flags in the type", b: attribute(0xc000|7, []byte("value")), types: []uint16{7}, values: []string{"value"}},
		{name: "the largest type", b: attribute(0x3fff, nil), types: []uint16{0x3fff}, values: []string{""}},
		{name: "without padding", b: one[:7], types: []uint16{1}, values: []string{"one"}},
		{name: "rest too short for an attribute", b: append(bytes.Clone(one), 0, 0, 0), types: []uint16{1}, values: []string{"one"}},
		{name: "length below the header", b: append(bytes.Clone(one), 3, 3, 0, 0), types: []uint16{1}, values: []string{"one"},
			short: true},
		{name: "cut off", b: append(bytes.Clone(one), two[:7]...), types: []uint16{1}, values: []string{"one"}, short: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			types, values, err := readAttributes(Attributes{rest: test.b})
			require.Equal(t, test.types, types)
			require.Equal(t, test.values, values)
			if test.short {
				require.Equal(t, ErrShort, err)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// captures are the requests whose answers are recorded in testdata, from a network namespace with sockets in every state. The
// tests of netstat compare the decoded sockets with ss.
var captures = map[string]Request{
	"tcp-listen":    {Protocol: ProtocolTCP, States: StatesListen, MemInfo: true},
	"tcp-connected": {Protocol: ProtocolTCP, States: StatesConnected, TCPInfo: true},
	"udp4":          {Family: AFInet, Protocol: ProtocolUDP, States: StatesAll, MemInfo: true},
	"udp6":          {Family: AFInet6, Protocol: ProtocolUDP, States: StatesAll, MemInfo: true},
	"unix":          {Family: AFUnix, States: StatesAll},
}

// captureFile returns the file of a recorded answer.
func captureFile(name string) string { return filepath.Join("testdata", name+".bin") }

// readCapture returns a recorded answer and its exchange.
func readCapture(tb testing.TB, name string) ([]byte, Exchange) {
	tb.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		tb.Skip("netlink messages are in the byte order of the host, and these were recorded on a little-endian one")
	}
	content, err := os.ReadFile(captureFile(name))
	require.NoError(tb, err)
	first, _, err := nextMessage(content)
	require.NoError(tb, err)
	return content, first.exchange()
}

// parse reads everything in a payload.
func parse(payload []byte, request Request) error {
	var attributes Attributes
	if request.Family == AFUnix {
		m, err := ParseUnix(payload)
		if err != nil {
			return err
		}
		attributes = m.Attributes()
	} else {
		m, err := ParseInet(payload)
		if err != nil {
			return err
		}
		attributes = m.Attributes()
	}
	_, _, err := readAttributes(attributes)
	return err
}

// parseCapture parses all messages of an answer, and returns the number of sockets.
func parseCapture(tb testing.TB, capture []byte, to Exchange, request Request) (sockets int) {
	tb.Helper()
	done, interrupted, err := EachAnswer(capture, to, func(payload []byte) bool {
		require.NoError(tb, parse(payload, request))
		sockets++
		return true
	})
	require.NoError(tb, err)
	require.True(tb, done)
	require.False(tb, interrupted)
	return sockets
}

// Every message of the captures is parsed; cut off at each byte, it is parsed or refused.
func TestCaptures(t *testing.T) {
	for name, request := range captures {
		t.Run(name, func(t *testing.T) {
			capture, to := readCapture(t, name)
			require.Positive(t, parseCapture(t, capture, to, request))
			_, _, err := EachAnswer(capture, to, func(payload []byte) bool {
				for end := range payload {
					if err := parse(payload[:end], request); err != nil {
						require.ErrorIs(t, err, ErrShort)
					}
				}
				return true
			})
			require.NoError(t, err)
			for end := range capture {
				_, _, err := EachAnswer(capture[:end], to, func([]byte) bool { return true })
				if err != nil {
					require.ErrorIs(t, err, ErrShort)
				}
			}
		})
	}
}

// addCaptures adds the payloads of the captures to the seeds of a fuzz target.
func addCaptures(f *testing.F, wanted func(Request) bool) {
	f.Helper()
	for name, request := range captures {
		if !wanted(request) {
			continue
		}
		content, err := os.ReadFile(captureFile(name))
		if err != nil {
			f.Fatal(err)
		}
		for len(content) > 0 {
			m, rest, err := nextMessage(content)
			if err != nil {
				break // a big-endian host
			}
			f.Add(m.payload())
			content = rest
		}
	}
}

// requireAttributes fails the test unless the bytes contain the attributes, in order.
func requireAttributes(t *testing.T, b []byte, attributes Attributes) {
	t.Helper()
	_, values, err := readAttributes(attributes)
	size := 0
	for _, value := range values {
		size += 4 + len(value)
	}
	require.LessOrEqual(t, size, len(b))
	if err != nil {
		require.Equal(t, ErrShort, err)
	}
}
