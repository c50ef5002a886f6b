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
	tcpiLastDataSent  = 44  // __u32 tcpi_last_data_sent: milliseconds
	tcpiLastDataRecv  = 52  // __u32 tcpi_last_data_recv: milliseconds
	tcpiRTT           = 68  // __u32 tcpi_rtt: microseconds
	tcpiRTTVar        = 72  // __u32 tcpi_rttvar: microseconds
	tcpiSndCwnd       = 80  // __u32 tcpi_snd_cwnd: segments
	tcpiTotalRetrans  = 100 // __u32 tcpi_total_retrans: segments
	tcpiBytesAcked    = 120 // __u64 tcpi_bytes_acked, Linux 4.1
	tcpiBytesReceived = 128 // __u64 tcpi_bytes_received, Linux 4.1
	tcpiSegsOut       = 136 // __u32 tcpi_segs_out, Linux 4.2
	tcpiSegsIn        = 140 // __u32 tcpi_segs_in, Linux 4.2
	tcpiNotsentBytes  = 144 // __u32 tcpi_notsent_bytes, Linux 4.6
	tcpiMinRTT        = 148 // __u32 tcpi_min_rtt: microseconds, Linux 4.6
	tcpiBusyTime      = 168 // __u64 tcpi_busy_time: microseconds, Linux 4.10
	tcpiRwndLimited   = 176 // __u64 tcpi_rwnd_limited: microseconds, Linux 4.10
	tcpiSndbufLimited = 184 // __u64 tcpi_sndbuf_limited: microseconds, Linux 4.10
	tcpiBytesSent     = 200 // __u64 tcpi_bytes_sent, Linux 4.19
	tcpiDSACKDups     = 216 // __u32 tcpi_dsack_dups: DSACK blocks, Linux 4.19
	tcpiRcvOOOPack    = 224 // __u32 tcpi_rcv_ooopack: segments, Linux 5.4
	tcpiTotalRTO      = 240 // __u16 tcpi_total_rto: timeouts, Linux 6.7
)

// HasBase reports whether the fields of Linux 2.6 are present.
func (i TCPInfo) HasBase() bool { return len(i) >= tcpiTotalRetrans+4 }

// HasBytes reports whether BytesAcked and BytesReceived are present.
func (i TCPInfo) HasBytes() bool { return len(i) >= tcpiBytesReceived+8 }

// HasSegs reports whether SegsOut and SegsIn are present.
func (i TCPInfo) HasSegs() bool { return len(i) >= tcpiSegsIn+4 }

// HasBytesSent reports whether BytesSent is present.
func (i TCPInfo) HasBytesSent() bool { return len(i) >= tcpiBytesSent+8 }

// HasLimits reports whether NotsentBytes, BusyTime, RwndLimited and SndbufLimited are present.
func (i TCPInfo) HasLimits() bool { return len(i) >= tcpiSndbufLimited+8 }

// HasDSACKDups reports whether DSACKDups is present.
func (i TCPInfo) HasDSACKDups() bool { return len(i) >= tcpiDSACKDups+4 }

// HasRcvOOOPack reports whether RcvOOOPack is present.
func (i TCPInfo) HasRcvOOOPack() bool { return len(i) >= tcpiRcvOOOPack+4 }

// HasTotalRTO reports whether TotalRTO is present.
func (i TCPInfo) HasTotalRTO() bool { return len(i) >= tcpiTotalRTO+2 }

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

// LastDataSent returns the milliseconds since data was last sent.
func (i TCPInfo) LastDataSent() uint32 { return i.uint32(tcpiLastDataSent) }

// LastDataRecv returns the milliseconds since data was last received.
func (i TCPInfo) LastDataRecv() uint32 { return i.uint32(tcpiLastDataRecv) }

// NotsentBytes returns the bytes in the send queue that were never sent.
func (i TCPInfo) NotsentBytes() uint32 { return i.uint32(tcpiNotsentBytes) }

// BusyTime returns the microseconds with data to send or to be acknowledged.
func (i TCPInfo) BusyTime() uint64 { return i.uint64(tcpiBusyTime) }

// RwndLimited returns the microseconds limited by the receive window of the peer.
func (i TCPInfo) RwndLimited() uint64 { return i.uint64(tcpiRwndLimited) }

// SndbufLimited returns the microseconds limited by the send buffer.
func (i TCPInfo) SndbufLimited() uint64 { return i.uint64(tcpiSndbufLimited) }

// DSACKDups returns the DSACK blocks received.
func (i TCPInfo) DSACKDups() uint32 { return i.uint32(tcpiDSACKDups) }

// RcvOOOPack returns the segments received out of order.
func (i TCPInfo) RcvOOOPack() uint32 { return i.uint32(tcpiRcvOOOPack) }

// TotalRTO returns the timeouts of the retransmission timer.
func (i TCPInfo) TotalRTO() uint16 {
	if len(i) < tcpiTotalRTO+2 {
		return 0
	}
	return binary.NativeEndian.Uint16(i[tcpiTotalRTO:])
}

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
