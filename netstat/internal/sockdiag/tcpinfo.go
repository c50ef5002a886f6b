package sockdiag

import "encoding/binary"

// TCPInfo is a view of struct tcp_info (include/uapi/linux/tcp.h), to which new kernels append fields. It can have any length:
// a field beyond the end is 0.
type TCPInfo []byte

// Offsets in struct tcp_info, with the first kernel that has the field, if later than Linux 2.6.
const (
	tcpiRetransmits   = 2   // __u8  tcpi_retransmits
	tcpiSndMSS        = 16  // __u32 tcpi_snd_mss: bytes
	tcpiLost          = 32  // __u32 tcpi_lost: segments
	tcpiRTT           = 68  // __u32 tcpi_rtt: microseconds
	tcpiRTTVar        = 72  // __u32 tcpi_rttvar: microseconds
	tcpiSndCwnd       = 80  // __u32 tcpi_snd_cwnd: segments
	tcpiTotalRetrans  = 100 // __u32 tcpi_total_retrans: segments
	tcpiBytesAcked    = 120 // __u64 tcpi_bytes_acked, Linux 4.1
	tcpiBytesReceived = 128 // __u64 tcpi_bytes_received, Linux 4.1
	tcpiSegsOut       = 136 // __u32 tcpi_segs_out, Linux 4.2
	tcpiSegsIn        = 140 // __u32 tcpi_segs_in, Linux 4.2
	tcpiMinRTT        = 148 // __u32 tcpi_min_rtt: microseconds, Linux 4.6
	tcpiBytesSent     = 200 // __u64 tcpi_bytes_sent, Linux 4.19
)

// HasBase reports whether the fields of Linux 2.6 are present.
func (i TCPInfo) HasBase() bool { return len(i) >= tcpiTotalRetrans+4 }

// HasBytes reports whether BytesAcked and BytesReceived are present.
func (i TCPInfo) HasBytes() bool { return len(i) >= tcpiBytesReceived+8 }

// HasSegs reports whether SegsOut and SegsIn are present.
func (i TCPInfo) HasSegs() bool { return len(i) >= tcpiSegsIn+4 }

// HasBytesSent reports whether BytesSent is present.
func (i TCPInfo) HasBytesSent() bool { return len(i) >= tcpiBytesSent+8 }

// Retransmits returns the consecutive retransmissions of the oldest unacknowledged segment.
func (i TCPInfo) Retransmits() uint8 {
	if len(i) <= tcpiRetransmits {
		return 0
	}
	return i[tcpiRetransmits]
}

// SndMSS returns the segment size in bytes.
func (i TCPInfo) SndMSS() uint32 { return i.uint32(tcpiSndMSS) }

// Lost returns the segments currently considered lost.
func (i TCPInfo) Lost() uint32 { return i.uint32(tcpiLost) }

// RTT returns the smoothed round-trip time in microseconds.
func (i TCPInfo) RTT() uint32 { return i.uint32(tcpiRTT) }

// RTTVar returns the mean deviation of the round-trip time in microseconds.
func (i TCPInfo) RTTVar() uint32 { return i.uint32(tcpiRTTVar) }

// SndCwnd returns the congestion window in segments.
func (i TCPInfo) SndCwnd() uint32 { return i.uint32(tcpiSndCwnd) }

// TotalRetrans returns the segments retransmitted.
func (i TCPInfo) TotalRetrans() uint32 { return i.uint32(tcpiTotalRetrans) }

// BytesAcked returns the bytes acknowledged by the peer, SYN and FIN included.
func (i TCPInfo) BytesAcked() uint64 { return i.uint64(tcpiBytesAcked) }

// BytesReceived returns the bytes received in order.
func (i TCPInfo) BytesReceived() uint64 { return i.uint64(tcpiBytesReceived) }

// SegsOut returns the segments sent, retransmitted ones included.
func (i TCPInfo) SegsOut() uint32 { return i.uint32(tcpiSegsOut) }

// SegsIn returns the segments received.
func (i TCPInfo) SegsIn() uint32 { return i.uint32(tcpiSegsIn) }

// MinRTT returns the minimum round-trip time in microseconds; 0 before the first sample, when the kernel has ~0.
func (i TCPInfo) MinRTT() uint32 {
	const noSample = 1<<32 - 1
	if rtt := i.uint32(tcpiMinRTT); rtt != noSample {
		return rtt
	}
	return 0
}

// BytesSent returns the bytes of data sent, retransmitted ones included.
func (i TCPInfo) BytesSent() uint64 { return i.uint64(tcpiBytesSent) }

func (i TCPInfo) uint32(at int) uint32 {
	if len(i) < at+4 {
		return 0
	}
	return binary.NativeEndian.Uint32(i[at:])
}

func (i TCPInfo) uint64(at int) uint64 {
	if len(i) < at+8 {
		return 0
	}
	return binary.NativeEndian.Uint64(i[at:])
}
