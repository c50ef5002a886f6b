package netstat

import (
	"net"
	"os/user"
)

// Connection is a socket and a process that holds it.
type Connection struct {
	// Exe is the path of the process's executable; empty if it could not be read.
	Exe string
	// Cmdline is the command line of the process; an empty slice if it could not be read or is empty. Connections of one
	// process share the slice.
	Cmdline []string
	// Pid is the lowest pid of the processes that hold the socket; 0 if there is none or the descriptors could not be read.
	Pid int

	// UserID is the id of the user who created the socket, in decimal, as for [user.LookupId].
	UserID string

	// Inode is the inode number of the socket; 0 if no process holds it.
	Inode uint64

	// IP is the local address: 4 bytes for the IPv4 protocols, 16 for the others.
	IP net.IP
	// Port is the local port.
	Port int
	// RemoteIP is the peer's address, unspecified if the socket has no peer.
	RemoteIP net.IP
	// RemotePort is the peer's port.
	RemotePort int
	// State is the state of a TCP socket. For other protocols TCPEstablished means connected and TCPClose not connected.
	State TCPState

	// TransmitQueue is, for TCP, the number of bytes that the peer has not acknowledged; for other protocols the memory of unsent
	// datagrams in bytes.
	TransmitQueue uint64
	// ReceiveQueue is, for TCP, the number of bytes that the process has not read; for a listening TCP socket the number of
	// connections waiting for accept(2); for other protocols the memory of received datagrams in bytes.
	ReceiveQueue uint64

	// Protocol is the table that contains the socket.
	Protocol *Protocol
}

// User looks up the user who created the socket. The error is a [user.UnknownUserIdError] if there is no such user.
func (c *Connection) User() (*user.User, error) {
	return user.LookupId(c.UserID)
}
