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
			length >= 192, // Linux 4.10
			length >= 208, // Linux 4.19
			length >= 220, // Linux 4.19
			length >= 228, // Linux 5.4
			length >= 242, // Linux 6.7
		}, []bool{
			i.HasBase(), i.HasBytes(), i.HasSegs(), i.HasLimits(), i.HasBytesSent(), i.HasDSACKDups(), i.HasRcvOOOPack(),
			i.HasTotalRTO(),
		}, "%d bytes", length)
		u16 := func(at int) uint64 {
			if length < at+2 {
				return 0
			}
			return uint64(binary.NativeEndian.Uint16(whole[at:]))
		}
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
			u32(44), u32(52), u32(144), u64(168), u64(176), u64(184), u32(216), u32(224), u16(240),
		}, []uint64{
			uint64(i.SndMSS()), uint64(i.Lost()), uint64(i.RTT()), uint64(i.RTTVar()), uint64(i.SndCwnd()), uint64(i.TotalRetrans()),
			i.BytesAcked(), i.BytesReceived(), uint64(i.SegsOut()), uint64(i.SegsIn()), uint64(i.MinRTT()), i.BytesSent(),
			uint64(i.LastDataSent()), uint64(i.LastDataRecv()), uint64(i.NotsentBytes()),
			i.BusyTime(), i.RwndLimited(), i.SndbufLimited(),
			uint64(i.DSACKDups()), uint64(i.RcvOOOPack()), uint64(i.TotalRTO()),
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
