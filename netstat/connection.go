package netstat

import (
	"net"
	"os/user"
)

// Connection is one socket and the process behind it.
type Connection struct {
	// Exe is the path of the process's executable; empty if it could not be read.
	Exe string
	// Cmdline is the command line of the process; an empty slice if it could not be read or has no content. The
	// connections of one process share it.
	Cmdline []string
	// Pid is the process that has the socket open, the one with the lowest pid if there are several; 0 if there is none
	// or it could not be looked up.
	Pid int

	// UserID is the id of the user who made the socket, a decimal number as [user.LookupId] wants it.
	UserID string

	// Inode identifies the socket among the open files of the host; 0 if no process has it open.
	Inode uint64

	// IP is the local address: 4 bytes for the IPv4 protocols, 16 for the others.
	IP net.IP
	// Port is the local port.
	Port int
	// RemoteIP is the peer's address, unspecified if the socket has no peer.
	RemoteIP net.IP
	// RemotePort is the peer's port.
	RemotePort int
	// State of a TCP socket. Of the others TCPEstablished says that the socket is connected, TCPClose that it is not.
	State TCPState

	// TransmitQueue: TCP: bytes that the peer has not acknowledged. Others: memory of datagrams not sent yet, in bytes.
	TransmitQueue uint64
	// ReceiveQueue: TCP: bytes that the process has not read, or, of a listening socket, connections that wait to be
	// accepted. Others: memory of received datagrams, in bytes.
	ReceiveQueue uint64

	// Protocol is the table that the socket was found in.
	Protocol *Protocol
}

// User looks up the user who made the socket. The error of a user who is not known is a [user.UnknownUserIdError].
func (c *Connection) User() (*user.User, error) {
	return user.LookupId(c.UserID)
}
