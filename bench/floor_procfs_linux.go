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

// walk reads all links in /proc/<pid>/fd.
type walk struct {
	processes, files []byte // what getdents fills
	path             []byte
	link             [128]byte
	sockets          int
}

func startWalk(task) (gather, error) {
	w := &walk{processes: make([]byte, bufferSize), files: make([]byte, bufferSize)}
	return inProcess(w.all), nil
}

func (w *walk) all() (sockets int, err error) {
	root, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening /proc: %w", err)
	}
	defer unix.Close(root)
	w.sockets = 0
	err = eachEntry(root, w.processes, func(name []byte) {
		if name[0] < '0' || name[0] > '9' {
			return
		}
		w.path = append(append(w.path[:0], name[:len(name)-1]...), "/fd\x00"...)
		if files, errno := openDirAt(root, w.path); errno == 0 { // or it has ended, or may not be looked into
			_ = eachEntry(files, w.files, func(name []byte) { w.read(files, name) })
			unix.Close(files)
		}
	})
	return w.sockets, err
}

// read reads the link with the name, which ends with a zero.
func (w *walk) read(dir int, name []byte) {
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

// eachEntry calls do with each name in a directory, with the zero at its end.
func eachEntry(dir int, buffer []byte, do func(name []byte)) error {
	const nameAt = 19 // in struct linux_dirent64 of fs/readdir.c
	for {
		n, err := unix.Getdents(dir, buffer)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading a directory: %w", err)
		}
		if n <= 0 {
			return nil
		}
		for entries := buffer[:n]; len(entries) > nameAt; {
			size := binary.NativeEndian.Uint16(entries[16:])
			name := entries[nameAt:size]
			do(name[:bytes.IndexByte(name, 0)+1])
			entries = entries[size:]
		}
	}
}

// startRead reads the tables of TCP in /proc/net.
func startRead(task) (gather, error) {
	buffer := make([]byte, bufferSize)
	return inProcess(func() (rows int, err error) {
		for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			n, err := countLines(file, buffer)
			if err != nil {
				return 0, err
			}
			rows += n - 1 // the first has the names of the columns
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
