package netstat

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
)

// diagConn is a sock_diag socket in a network namespace. Tests replace it.
type diagConn interface {
	Dump(ctx context.Context, r sockdiag.Request, socket func(payload []byte) bool) (interrupted bool, err error)
	// AppendDeviceName appends the name of the network device with the index.
	AppendDeviceName(name []byte, index uint32) ([]byte, error)
	Close() error
}

var _ diagConn = (*sockdiag.Conn)(nil)

// diagOpener returns a function that opens a netlink socket in the network namespace of the calling thread.
func diagOpener(prefetch func(payload []byte)) func() (diagConn, error) {
	opener := sockdiag.Opener{Prefetch: prefetch}
	return func() (diagConn, error) {
		conn, err := opener.Open()
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}

// prefetchOwners prefetches the owners of the socket in a message.
func (s *Scanner) prefetchOwners(message []byte) {
	if inode, ok := sockdiag.InetInode(message); ok {
		s.owners.prefetch(inode)
	}
}

var errNoDiag = errors.New("sock_diag is unavailable for this transport")

// diagModules are the kernel modules that implement sock_diag for the transports.
var diagModules = map[Transport]string{
	TransportTCP:     "tcp_diag",
	TransportUDP:     "udp_diag",
	TransportUDPLite: "udp_diag",
	TransportRaw:     "raw_diag",
	TransportUnix:    "unix_diag",
}

// eachFromNetlink implements each with sock_diag. The error is errNoDiag if sock_diag is unavailable for the transport; then
// handOut was not called.
func (s *Scanner) eachFromNetlink(ctx context.Context, transport Transport, handOut func(error) bool) error {
	s.socket.NetNS = s.reading.Inode
	message := func(payload []byte) bool {
		if transport == TransportUnix {
			return handOut(s.socket.decodeUnix(payload, &s.paths))
		}
		err := s.socket.decodeInet(payload, transport)
		if err == nil {
			s.reading.devices.addZones(&s.socket)
		}
		return handOut(err)
	}
	var failed []error
	seen := func() int { return s.stats.Sockets + len(s.late.held) }
	before := seen()
	for _, request := range s.requests(transport) {
		interrupted, err := s.reading.diag.Dump(ctx, request, message)
		if interrupted {
			s.stats.Interrupted++
		}
		switch {
		case err == nil:
		case errors.Is(err, sockdiag.ErrStopped):
			return errStopped
		case ctx.Err() != nil:
			return err
		case errors.Is(err, errors.ErrUnsupported) && seen() == before && failed == nil:
			return fmt.Errorf("%w: %w", errNoDiag, err)
		default:
			failed = append(failed, fmt.Errorf("reading %s sockets by sock_diag: %w", requested(transport, request), err))
		}
		if errors.Is(err, sockdiag.ErrNoAnswer) {
			break // the next request would time out too
		}
	}
	return errors.Join(failed...)
}

// diagProtocols are the protocol numbers of the transports that sock_diag dumps separately for each family.
var diagProtocols = map[Transport]uint8{
	TransportUDP:     sockdiag.ProtocolUDP,
	TransportUDPLite: sockdiag.ProtocolUDPLite,
	TransportRaw:     sockdiag.ProtocolRaw,
}

// requests returns the dumps that together cover all sockets of the transport. Listening sockets come first; the kernel keeps
// them in a table of their own.
func (s *Scanner) requests(transport Transport) []sockdiag.Request {
	switch transport {
	case TransportUnix:
		return []sockdiag.Request{{Family: sockdiag.AFUnix, States: sockdiag.StatesAll, Names: s.config.UnixPaths}}
	case TransportTCP:
		return []sockdiag.Request{
			{Protocol: sockdiag.ProtocolTCP, States: sockdiag.StatesListen, MemInfo: true},
			{
				Protocol: sockdiag.ProtocolTCP, States: sockdiag.StatesConnected, TCPInfo: s.config.TCPInfo,
				Bytecode: s.bytecode,
			},
		}
	default:
		protocol := diagProtocols[transport]
		return []sockdiag.Request{
			{Family: sockdiag.AFInet, Protocol: protocol, States: sockdiag.StatesAll, MemInfo: true},
			{Family: sockdiag.AFInet6, Protocol: protocol, States: sockdiag.StatesAll, MemInfo: true},
		}
	}
}

// requested names the sockets of a request, for errors.
func requested(transport Transport, r sockdiag.Request) string {
	switch r.Family {
	case sockdiag.AFInet:
		return FamilyIPv4.String() + " " + transport.String()
	case sockdiag.AFInet6:
		return FamilyIPv6.String() + " " + transport.String()
	default:
		return transport.String()
	}
}

// decodeInet fills s from an inet_diag_msg. After an error s is invalid.
func (s *Socket) decodeInet(payload []byte, transport Transport) error {
	m, err := sockdiag.ParseInet(payload)
	if err != nil {
		return err
	}
	return s.setInet(m, transport)
}

func (s *Socket) setInet(m sockdiag.InetMessage, transport Transport) error {
	family := FamilyIPv6
	if m.Family() == sockdiag.AFInet {
		family = FamilyIPv4
	}
	s.reset(transport, family)
	s.State = TCPState(m.State())
	s.Local, s.Remote = m.Local(), m.Remote()
	s.Interface, s.Cookie = m.Interface(), m.Cookie()
	s.fields |= FieldInterface | FieldCookie
	s.setDiagQueues(m.RecvQueue(), m.SendQueue())
	s.UID, s.Inode = m.UID(), uint64(m.Inode())
	attributes := m.Attributes()
	for attributes.Next() { // too short attributes are ignored
		switch attributes.Type {
		case sockdiag.InetInfo:
			if transport == TransportTCP && s.State != TCPListen { // fields have another meaning for a listening socket
				s.fields |= s.TCP.set(sockdiag.TCPInfo(attributes.Value))
			}
		case sockdiag.InetSKMemInfo:
			if drops, ok := sockdiag.Drops(attributes.Value); ok {
				s.Drops = drops
				s.fields |= FieldDrops
			}
		case sockdiag.InetCgroupID:
			if id, ok := sockdiag.CgroupID(attributes.Value); ok {
				s.CgroupID = id
				s.fields |= FieldCgroupID
			}
		}
	}
	if err := attributes.Err(); err != nil {
		return fmt.Errorf("attributes of inet_diag_msg: %w", err)
	}
	return nil
}

// set decodes info and returns the fields that it has.
func (i *TCPInfo) set(info sockdiag.TCPInfo) Field {
	*i = TCPInfo{}
	if !info.HasBase() {
		return 0
	}
	i.SndMSS, i.RTT, i.RTTVar, i.CWnd, i.RetransSegs = info.SndMSS(), info.RTT(), info.RTTVar(), info.SndCwnd(), info.TotalRetrans()
	i.Retransmits, i.Lost, i.MinRTT = info.Retransmits(), info.Lost(), info.MinRTT()
	i.LastDataSent, i.LastDataRecv = info.LastDataSent(), info.LastDataRecv()
	fields := FieldTCPInfo
	if info.HasBytes() {
		i.BytesAcked, i.BytesReceived = info.BytesAcked(), info.BytesReceived()
		fields |= FieldTCPBytes
	}
	if info.HasSegs() {
		i.SegsOut, i.SegsIn = info.SegsOut(), info.SegsIn()
		fields |= FieldTCPSegs
	}
	if info.HasBytesSent() {
		i.BytesSent = info.BytesSent()
		fields |= FieldTCPBytesSent
	}
	if info.HasLimits() {
		i.NotsentBytes, i.BusyTime = info.NotsentBytes(), info.BusyTime()
		i.RwndLimited, i.SndbufLimited = info.RwndLimited(), info.SndbufLimited()
		fields |= FieldTCPLimits
	}
	if info.HasDSACKDups() {
		i.DSACKDups = info.DSACKDups()
		fields |= FieldTCPDSACKDups
	}
	if info.HasRcvOOOPack() {
		i.RcvOOOPack = info.RcvOOOPack()
		fields |= FieldTCPRcvOOOPack
	}
	if info.HasTotalRTO() {
		i.TotalRTO = info.TotalRTO()
		fields |= FieldTCPTotalRTO
	}
	return fields
}

// decodeUnix fills s from a unix_diag_msg. After an error s is invalid.
func (s *Socket) decodeUnix(payload []byte, paths *pathTable) error {
	m, err := sockdiag.ParseUnix(payload)
	if err != nil {
		return err
	}
	s.reset(TransportUnix, FamilyUnix)
	s.State, s.Inode, s.Cookie = TCPState(m.State()), uint64(m.Inode()), m.Cookie()
	s.fields |= FieldCookie
	attributes := m.Attributes()
	for attributes.Next() {
		switch attributes.Type {
		case sockdiag.UnixName:
			s.Path = paths.getDiag(attributes.Value)
		case sockdiag.UnixRQLen:
			if recv, send, ok := sockdiag.Queues(attributes.Value); ok {
				s.setDiagQueues(recv, send)
			}
		case sockdiag.UnixUID:
			if uid, ok := sockdiag.UID(attributes.Value); ok {
				s.UID = uid
			}
		}
	}
	if err := attributes.Err(); err != nil {
		return fmt.Errorf("attributes of unix_diag_msg: %w", err)
	}
	return nil
}

// pathTable keeps the names of unix sockets from scan to scan: a name that stays costs no allocation. It is bounded: any
// process can make names.
type pathTable struct {
	byName map[string]*pathEntry
	scan   uint64
	buf    []byte
}

type pathEntry struct {
	path string
	seen uint64 // the last scan that saw it
}

const maxPaths = 1 << 16 // a name has at most 108 bytes

// nextScan starts a scan, and forgets the names that the last one did not see.
func (t *pathTable) nextScan() {
	for name, entry := range t.byName {
		if entry.seen != t.scan {
			delete(t.byName, name)
		}
	}
	t.scan++
}

// get returns the name as a string.
func (t *pathTable) get(name []byte) string {
	if len(name) == 0 {
		return ""
	}
	if entry := t.byName[string(name)]; entry != nil {
		entry.seen = t.scan
		return entry.path
	}
	path := string(name)
	if len(t.byName) < maxPaths {
		if t.byName == nil {
			t.byName = map[string]*pathEntry{}
		}
		t.byName[path] = &pathEntry{path, t.scan}
	}
	return path
}

// getDiag is get for a name of sock_diag. It formats the name as /proc/net/unix does. An abstract name begins with a NUL.
func (t *pathTable) getDiag(name []byte) string {
	if len(name) == 0 || name[0] != 0 {
		return t.get(bytes.TrimRight(name, "\x00"))
	}
	t.buf = append(t.buf[:0], name...)
	for i, c := range t.buf {
		if c == 0 {
			t.buf[i] = '@'
		}
	}
	return t.get(t.buf)
}
