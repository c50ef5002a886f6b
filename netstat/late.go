package netstat

import "context"

// lateSockets are the sockets of a namespace, but for those that listen, of which no process was known when the kernel told of
// them. Most were opened since the processes were looked at: for them it is worth to look once more.
type lateSockets struct {
	held   []Socket
	before int  // sockets handed out before those of the namespace
	looked bool // in this scan, for whichever namespace
}

// mostLate bounds the memory for late sockets, and so what a reader costs who may not look at processes.
const mostLate = 8192

// begin opens the sockets of a namespace.
func (l *lateSockets) begin(handedOut int) {
	clear(l.held) // or names would be kept
	l.held, l.before = l.held[:0], handedOut
}

// hold keeps the socket for later, and tells whether it did.
func (l *lateSockets) hold(s *Socket) bool {
	if s.Inode == 0 || s.State == TCPListen || len(l.held) == mostLate || len(s.Owners()) > 0 {
		return false
	}
	l.held = append(l.held, *s)
	return true
}

// worth tells whether the late sockets of a namespace are so many that looking for the owners once more is worth what it costs:
// more than one in a hundred. Those that have no owner that could be found, as the time before, do not count. Once a scan is
// enough: it is for all namespaces.
func (l *lateSockets) worth(n *trackedNamespace, handedOut int) bool {
	n.unowned = min(n.unowned, len(l.held))
	const oneIn = 100
	return !l.looked && (len(l.held)-n.unowned)*oneIn > handedOut-l.before
}

// handOutLate looks for the owners of the late sockets once more, if that is worth it, and hands them out.
func (s *Scanner) handOutLate(ctx context.Context, yield func(*Socket, error) bool) bool {
	look := s.late.worth(s.reading, s.stats.Sockets+len(s.late.held))
	if look {
		s.late.looked = true
		switch err := s.findOwners(ctx); {
		case ctx.Err() != nil:
			yield(nil, ctx.Err())
			return false
		case err != nil && !yield(nil, err):
			return false
		}
	}
	unowned := 0
	for i := range s.late.held {
		s.socket = s.late.held[i]
		s.socket.number = s.current.next()
		if len(s.socket.Owners()) == 0 {
			unowned++
		}
		s.setOwnerByConnect()
		s.stats.Sockets++
		if !yield(&s.socket, nil) {
			return false
		}
	}
	if look {
		s.reading.unowned = unowned
	}
	return true
}

// setOwnerByConnect has a connection of which no process is known be of the one that began it, if that is known: it was opened since
// the processes were looked at.
func (s *Scanner) setOwnerByConnect() {
	if s.socket.Transport != TransportTCP || !s.socket.Has(FieldCookie) || len(s.socket.Owners()) > 0 {
		return
	}
	if connect, known := s.connects.Lookup(s.socket.Cookie); known {
		s.current.owners = append(s.current.owners, s.processes.ofConnect(&connect))
	}
}
