package testnet

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

func one(s Socket, err error) (reply, error) {
	return reply{Sockets: []Socket{s}}, err
}

func many(s []Socket, err error) (reply, error) {
	return reply{Sockets: s}, err
}

func ended(a []Attempted, err error) (reply, error) {
	return reply{Attempted: a}, err
}

// register stores and describes a socket. If err is not nil, it returns err.
func (h *helper) register(fd int, err error) (Socket, error) {
	if err != nil {
		return Socket{}, err
	}
	s, err := describe(fd)
	h.fds[s.Inode] = fd
	return s, err
}

func (h *helper) listen(r request) (Socket, error) {
	n, err := findNetwork(r.Network)
	if err != nil {
		return Socket{}, err
	}
	fd, err := n.listen(n.orAny(r.Local), r.N, r.Options)
	s, err := h.register(fd, err)
	if err == nil {
		h.listeners = append(h.listeners, fd)
		s.State, s.SendQ = "LISTEN", uint32(r.N)
	}
	return s, err
}

// connect starts all connections before it waits for any of them: if the accept queue is full, some are not established before
// the server accepts others.
func (h *helper) connect(r request, end time.Time) ([]Socket, error) {
	n := networkTo(r.Remote.Addr())
	var fds []int
	for range r.N {
		fd, err := n.open(netip.AddrPort{}, r.Options)
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
		if err := connectFrom(fd, r.Local, r.Remote); err != nil {
			return nil, err
		}
	}
	sockets := make([]Socket, 0, r.N)
	for _, fd := range fds {
		if err := finishConnect(fd, end); err != nil {
			return nil, err
		}
		s, err := h.register(fd, nil)
		if err != nil {
			return nil, err
		}
		s.State = "ESTABLISHED"
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// set sets the options of a socket that is not bound yet.
func (o SocketOptions) set(fd int) error {
	if o.ReusePort {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("setting SO_REUSEPORT: %w", err)
		}
	}
	if o.Device != "" {
		if err := unix.BindToDevice(fd, o.Device); err != nil {
			return fmt.Errorf("binding to device %s: %w", o.Device, err)
		}
	}
	return nil
}

// connectFrom starts a connection from an address, if that is valid.
func connectFrom(fd int, from, to netip.AddrPort) error {
	if err := bindForConnect(fd, from); err != nil {
		return err
	}
	return startConnect(fd, to)
}

// bindForConnect binds a socket to an address, if that is valid. Without a port connect(2) chooses it, not bind(2), which would need
// a port that no other connection uses, whatever its remote address.
func bindForConnect(fd int, from netip.AddrPort) error {
	if from.IsValid() {
		if from.Port() == 0 {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
				return fmt.Errorf("setting IP_BIND_ADDRESS_NO_PORT: %w", err)
			}
		}
		if err := unix.Bind(fd, sockaddr(from)); err != nil {
			return fmt.Errorf("binding to %v: %w", from, err)
		}
	}
	return nil
}

func (h *helper) accept(r request, end time.Time) ([]Socket, error) {
	listener, err := h.fd(r.Inodes[0])
	if err != nil {
		return nil, err
	}
	sockets := make([]Socket, 0, r.N)
	for range r.N {
		s, err := h.register(accept(listener, end))
		if err != nil {
			return nil, fmt.Errorf("after %d of %d: %w", len(sockets), r.N, err)
		}
		s.State = "ESTABLISHED"
		sockets = append(sockets, s)
	}
	return sockets, nil
}

func (h *helper) udp(r request) (Socket, error) {
	n, err := findNetwork(r.Network)
	if err != nil {
		return Socket{}, err
	}
	fd, err := n.open(n.orAny(r.Local))
	state := "CLOSE"
	if err == nil && r.Remote.IsValid() {
		state = "ESTABLISHED"
		err = startConnect(fd, r.Remote)
	}
	s, err := h.register(fd, err)
	s.State = state
	return s, err
}

func (h *helper) fd(inode uint64) (int, error) {
	fd, ok := h.fds[inode]
	if !ok {
		return -1, fmt.Errorf("process %d does not hold socket %d", os.Getpid(), inode)
	}
	return fd, nil
}

func (h *helper) each(r request, do func(fd int) error) error {
	for _, inode := range r.Inodes {
		fd, err := h.fd(inode)
		if err == nil {
			err = do(fd)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *helper) close(fd int) error {
	h.drop(fd)
	return unix.Close(fd)
}

// drop unregisters a socket.
func (h *helper) drop(fd int) {
	h.listeners = slices.DeleteFunc(h.listeners, func(listener int) bool { return listener == fd })
	maps.DeleteFunc(h.fds, func(_ uint64, held int) bool { return held == fd })
}

func (h *helper) reset(fd int) error {
	h.drop(fd)
	return closeWithReset(fd)
}

// closeWithReset closes a socket; if it is connected, the kernel resets the connection.
func closeWithReset(fd int) error {
	err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	return errors.Join(err, unix.Close(fd))
}

// read reads n bytes.
func read(fd, n int, end time.Time) error {
	buffer := make([]byte, n)
	for len(buffer) > 0 {
		if err := poll(fd, unix.POLLIN, end); err != nil {
			return fmt.Errorf("with %d bytes left to read: %w", len(buffer), err)
		}
		got, err := unix.Read(fd, buffer)
		if err == nil && got == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("with %d bytes left to read: %w", len(buffer), err)
		}
		buffer = buffer[got:]
	}
	return nil
}
