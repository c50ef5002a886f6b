//go:build amd64 || arm64

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

func openOwners(t *testing.T) *Owners {
	t.Helper()
	owners, err := OpenOwners("/proc")
	require.NoError(t, err)
	t.Cleanup(owners.Close)
	return owners
}

// ownSockets returns the inodes of this process's sockets, one per descriptor.
func ownSockets(t *testing.T) (inodes []uint64) {
	t.Helper()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		var inode uint64
		target, _ := os.Readlink(filepath.Join(dir, entry.Name())) // the descriptor of dir itself is closed already
		if n, _ := fmt.Sscanf(target, "socket:[%d]", &inode); n == 1 {
			inodes = append(inodes, inode)
		}
	}
	slices.Sort(inodes)
	return inodes
}

// openForProcess starts an iteration over the descriptors of one process, which requires Linux 6.1.
func openForProcess(t *testing.T, owners *Owners, pid int) *os.File {
	t.Helper()
	bpf := func(command int, attributes unsafe.Pointer, size uintptr) int {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attributes), size)
		if errno == unix.EINVAL {
			testnet.SkipOrFail(t, "an iterator over one process requires Linux 6.1")
		}
		require.Zero(t, errno)
		return int(fd)
	}
	// union bpf_iter_link_info and union bpf_attr, include/uapi/linux/bpf.h
	info := struct{ tid, pid, pidFD, pad uint32 }{pid: uint32(pid)}
	create := struct {
		program, target, attachType, flags uint32
		info                               unsafe.Pointer
		infoLen, pad                       uint32
	}{
		program: uint32(owners.programs.Owners.FD()), attachType: unix.BPF_TRACE_ITER,
		info: unsafe.Pointer(&info), infoLen: uint32(unsafe.Sizeof(info)),
	}
	link := bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&create), unsafe.Sizeof(create))
	defer unix.Close(link)
	open := struct{ link, flags uint32 }{link: uint32(link)}
	file := os.NewFile(uintptr(bpf(unix.BPF_ITER_CREATE, unsafe.Pointer(&open), unsafe.Sizeof(open))), "bpf_iter")
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// Each iteration starts with a header of the process, even if another iteration, before or at the same time, stopped in that
// process.
func TestOwnersIterationRestarts(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		const sockets = 9000 // more than the 4096 that fit into the kernel's buffer
		for range sockets / 2 {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			defer unix.Close(pair[0])
			defer unix.Close(pair[1])
		}
		want := ownSockets(t)
		require.GreaterOrEqual(t, len(want), sockets)

		owners := openOwners(t)
		read := func(from io.Reader) {
			t.Helper()
			var inodes []uint64
			require.NoError(t, owners.Each(t.Context(), from, func(p *Process, of []uint64) {
				require.Equal(t, os.Getpid(), int(p.PID))
				inodes = append(inodes, of...)
			}))
			slices.Sort(inodes)
			require.True(t, slices.Equal(want, inodes), "%d sockets, want %d", len(inodes), len(want))
		}
		for range 3 {
			read(openForProcess(t, owners, os.Getpid()))
		}
		partial := openForProcess(t, owners, os.Getpid())
		prefix := make([]byte, 1<<10)
		n, err := io.ReadFull(partial, prefix)
		require.NoError(t, err)
		read(openForProcess(t, owners, os.Getpid()))
		read(io.MultiReader(bytes.NewReader(prefix[:n]), partial))
	})
}

// countAgain counts the reads that returned EAGAIN.
type countAgain struct {
	io.Reader
	count int
}

func (c *countAgain) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if errors.Is(err, unix.EAGAIN) {
		c.count++
	}
	return n, err
}

// After a million descriptors without a socket a read of the iterator returns EAGAIN (MAX_ITER_OBJECTS, kernel/bpf/bpf_iter.c).
// Here they belong to one process whose threads have separate descriptor tables.
func TestSlowOwnersMillionDescriptors(t *testing.T) {
	testnet.SkipUnlessSlow(t)
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		const descriptors = 2_100_000 // at least a million on one side of the socket
		if inherited := ownSockets(t); len(inherited) > 0 {
			testnet.SkipOrFail(t, fmt.Sprintf("this process inherited sockets: %d", inherited))
		}
		null, err := os.Open(os.DevNull)
		require.NoError(t, err)
		defer null.Close()
		const besides = 200
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		files := int(min(limit.Cur-besides, 19_000))
		threads := descriptors/files + 1
		if threads > 1000 {
			testnet.SkipOrFail(t, fmt.Sprintf("requires %d threads, each with %d open files", threads, files))
		}
		for range files {
			fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			require.NoError(t, err)
			defer unix.Close(fd)
		}
		started, end, ended := make(chan uint64), make(chan struct{}), make(chan struct{})
		defer func() {
			close(end)
			for range threads {
				<-ended
			}
		}()
		var want uint64
		for i := range threads {
			testnet.StartThread(0, 0, func() {
				defer func() { ended <- struct{}{} }()
				assert.NoError(t, unix.Unshare(unix.CLONE_FILES))
				if i == threads/2 {
					started <- testnet.BindUDP(t)
				} else {
					started <- 0
				}
				<-end
			})
			want += <-started
		}

		owners := openOwners(t)
		again := &countAgain{Reader: openForProcess(t, owners, os.Getpid())}
		var found []uint64
		require.NoError(t, owners.Each(t.Context(), again, func(_ *Process, inodes []uint64) { found = append(found, inodes...) }))
		require.Equal(t, []uint64{want}, found)
		require.Positive(t, again.count)
		records, err := owners.Start() // with all other processes of the machine
		require.NoError(t, err)
		defer records.Close()
		found = nil
		require.NoError(t, owners.Each(t.Context(), records, func(p *Process, inodes []uint64) {
			if int(p.PID) == os.Getpid() {
				found = append(found, inodes...)
			}
		}))
		require.Equal(t, []uint64{want}, found)
	})
}
