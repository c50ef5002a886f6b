package testnet

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A UnixSocket has the values that the kernel should report for a Unix socket.
type UnixSocket struct {
	Type  string // stream, dgram or seqpacket
	State string // LISTEN, ESTABLISHED or CLOSE
	Path  string // "" if it is not bound; begins with @ if it is abstract
	Inode uint64
	Peer  uint64 // inode of the connected socket, or 0
}

// Unix creates Unix sockets: for each type a pair, a socket bound to a path and one bound to an abstract address. The bound
// stream and seqpacket sockets listen, and each has one accepted connection.
func Unix(tb testing.TB) []UnixSocket {
	tb.Helper()
	dir, err := os.MkdirTemp("", "testnet") //nolint:usetesting // the path of a TempDir may be too long for an address
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })

	l := &unixLoad{Load: newLoad(tb)}
	for name, typ := range map[string]int{"stream": unix.SOCK_STREAM, "dgram": unix.SOCK_DGRAM, "seqpacket": unix.SOCK_SEQPACKET} {
		l.pair(name, typ)
		for _, path := range []string{filepath.Join(dir, name), "@testnet-" + filepath.Base(dir) + "-" + name} {
			l.bound(name, typ, path)
		}
	}
	return l.sockets
}

type unixLoad struct {
	*Load
	sockets []UnixSocket
}

func (l *unixLoad) pair(name string, typ int) {
	l.tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	l.must(err)
	l.connected(name, l.hold(fds[0], nil), "", l.hold(fds[1], nil), "")
}

func (l *unixLoad) bound(name string, typ int, path string) {
	l.tb.Helper()
	open := func() int {
		return l.hold(unix.Socket(unix.AF_UNIX, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0))
	}
	server := open()
	l.must(unix.Bind(server, &unix.SockaddrUnix{Name: path}))
	if typ == unix.SOCK_DGRAM {
		l.sockets = append(l.sockets, UnixSocket{name, "CLOSE", path, l.inode(server), 0})
		return
	}
	l.must(unix.Listen(server, 4))
	l.sockets = append(l.sockets, UnixSocket{name, "LISTEN", path, l.inode(server), 0})
	client := open()
	l.must(unix.Connect(client, &unix.SockaddrUnix{Name: path}))
	// An accepted socket has the address of the listener.
	l.connected(name, client, "", l.hold(accept(server, deadline())), path)
}

func (l *unixLoad) connected(name string, a int, aPath string, b int, bPath string) {
	l.tb.Helper()
	aInode, bInode := l.inode(a), l.inode(b)
	l.sockets = append(l.sockets,
		UnixSocket{name, "ESTABLISHED", aPath, aInode, bInode},
		UnixSocket{name, "ESTABLISHED", bPath, bInode, aInode})
}

func (l *unixLoad) inode(fd int) uint64 {
	l.tb.Helper()
	var stat unix.Stat_t
	l.must(unix.Fstat(fd, &stat))
	return stat.Ino
}
