package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fdWalk reads all links in /proc/<pid>/fd, without allocations.
type fdWalk struct {
	processes, files []byte // buffers of getdents
	path             []byte
	link             [128]byte
	sockets          int
}

func startFDWalk(task) (gather, error) {
	w := &fdWalk{processes: make([]byte, bufferSize), files: make([]byte, bufferSize)}
	return measureInProcess(w.run), nil
}

func (w *fdWalk) run() (sockets int, err error) {
	root, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening /proc: %w", err)
	}
	defer unix.Close(root)
	w.sockets = 0
	err = forEachEntry(root, w.processes, func(name []byte) {
		if name[0] < '0' || name[0] > '9' {
			return
		}
		w.path = append(append(w.path[:0], name[:len(name)-1]...), "/fd\x00"...)
		if files, errno := openDirAt(root, w.path); errno == 0 { // else the process has exited, or the permission is missing
			_ = forEachEntry(files, w.files, func(name []byte) { w.readLink(files, name) })
			unix.Close(files)
		}
	})
	return w.sockets, err
}

// readLink reads the link with this name, which ends with a NUL byte.
func (w *fdWalk) readLink(dir int, name []byte) {
	if name[0] == '.' {
		return
	}
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(&w.link[0])), uintptr(len(w.link)), 0, 0)
	if errno == 0 && n > 0 && w.link[0] == 's' { // socket:[…]
		w.sockets++
	}
}

func openDirAt(dir int, name []byte) (fd int, errno unix.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
		unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, 0, 0)
	return int(r), errno
}

// forEachEntry calls do with each name in a directory. The name ends with a NUL byte.
func forEachEntry(dir int, buffer []byte, do func(name []byte)) error {
	const nameOffset = 19 // d_name of struct linux_dirent64, include/linux/dirent.h
	for {
		n, err := unix.Getdents(dir, buffer)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading a directory: %w", err)
		}
		if n <= 0 {
			return nil
		}
		for entries := buffer[:n]; len(entries) > nameOffset; {
			size := binary.NativeEndian.Uint16(entries[16:])
			name := entries[nameOffset:size]
			do(name[:bytes.IndexByte(name, 0)+1])
			entries = entries[size:]
		}
	}
}

// startProcNetRead measures reading the TCP tables in /proc/net.
func startProcNetRead(task) (gather, error) {
	buffer := make([]byte, bufferSize)
	return measureInProcess(func() (rows int, err error) {
		for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			n, err := countLines(file, buffer)
			if err != nil {
				return 0, err
			}
			rows += n - 1 // without the header
		}
		return rows, nil
	}), nil
}

func countLines(file string, buffer []byte) (lines int, err error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening %s: %w", file, err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buffer)
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", file, err)
		}
		if n == 0 {
			return lines, nil
		}
		lines += bytes.Count(buffer[:n], []byte{'\n'})
	}
}
