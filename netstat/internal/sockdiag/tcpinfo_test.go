package sockdiag

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// struct tcp_info grows with kernel versions: at each length, exactly the fields within it are present.
func TestTCPInfoOfEveryLength(t *testing.T) {
	const longest = 300
	whole := make(TCPInfo, longest)
	for i := range whole {
		whole[i] = byte(i + 1)
	}
	for length := range longest + 1 {
		i := whole[:length:length]
		require.Equal(t, []bool{
			length >= 104, // Linux 2.6
			length >= 136, // Linux 4.1
			length >= 144, // Linux 4.2
			length >= 208, // Linux 4.19
		}, []bool{i.HasBase(), i.HasBytes(), i.HasSegs(), i.HasBytesSent()}, "%d bytes", length)
		u32 := func(at int) uint64 {
			if length < at+4 {
				return 0
			}
			return uint64(binary.NativeEndian.Uint32(whole[at:]))
		}
		u64 := func(at int) uint64 {
			if length < at+8 {
				return 0
			}
			return binary.NativeEndian.Uint64(whole[at:])
		}
		require.Equal(t, []uint64{
			u32(16), u32(32), u32(68), u32(72), u32(80), u32(100), u64(120), u64(128), u32(136), u32(140), u32(148), u64(200),
		}, []uint64{
			uint64(i.SndMSS()), uint64(i.Lost()), uint64(i.RTT()), uint64(i.RTTVar()), uint64(i.SndCwnd()), uint64(i.TotalRetrans()),
			i.BytesAcked(), i.BytesReceived(), uint64(i.SegsOut()), uint64(i.SegsIn()), uint64(i.MinRTT()), i.BytesSent(),
		}, "%d bytes", length)
		if length > 2 {
			require.EqualValues(t, 3, i.Retransmits())
		} else {
			require.Zero(t, i.Retransmits())
		}
	}
}

// Before the first sample, tcpi_min_rtt is the highest number.
func TestTCPInfoWithoutRTT(t *testing.T) {
	i := make(TCPInfo, 248)
	binary.NativeEndian.PutUint32(i[148:], 1<<32-1)
	require.Zero(t, i.MinRTT())
	binary.NativeEndian.PutUint32(i[148:], 1<<32-2)
	require.Equal(t, uint32(1<<32-2), i.MinRTT())
}
