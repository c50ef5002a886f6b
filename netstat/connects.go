package netstat

import "bytes"

// connectRecorder knows which processes began TCP connections. It can be used by several goroutines.
type connectRecorder interface {
	// look returns who began the connection of the socket with the cookie; false if that is not known.
	look(cookie uint64) (connectRecord, bool)
	close()
}

// connectRecord says who began a connection, and where to. It holds no pointers.
type connectRecord struct {
	cgroupID      uint64 // of cgroup v2, that the process was in
	startBootTime uint64 // of the process, ns
	pid           uint32
	uid           uint32 // effective user id
	comm          [16]byte
	port          uint16 // of the peer: the kernel forgets it when a connection is refused or aborted
}

func (r *connectRecord) name() []byte { return untilNUL(r.comm[:]) }

func untilNUL(comm []byte) []byte {
	name, _, _ := bytes.Cut(comm, []byte{0})
	return name
}
