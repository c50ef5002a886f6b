package netstat

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// cgroupFS reads the directories of a cgroup2 file system. The id of a cgroup is the inode number of its directory, since
// Linux 5.5 (kernfs_ino, include/linux/kernfs.h).
type cgroupFS struct {
	mountinfo string
	mount     cgroupMount
	names     [32 << 10]byte
}

var _ cgroupTree = (*cgroupFS)(nil)

func openCgroupTree(procRoot string) (cgroupTree, error) {
	if !procfs.IsMounted(procRoot) {
		return nil, fmt.Errorf("%w: %s is not a proc file system but a copy of one", ErrNoCgroup2, procRoot)
	}
	t := &cgroupFS{mountinfo: filepath.Join(procRoot, "self", "mountinfo")}
	root, err := t.open()
	if err != nil {
		return nil, err
	}
	return t, unix.Close(root)
}

// open opens the directory that the file system is mounted on. It is not kept open, which would keep the file system from
// being unmounted.
func (t *cgroupFS) open() (fd int, err error) {
	if t.mount.point != "" {
		if fd, err := openCgroup2(t.mount.point); err == nil {
			return fd, nil
		}
	}
	content, err := os.ReadFile(t.mountinfo)
	if err != nil {
		return -1, fmt.Errorf("looking for the cgroup2 file system: %w", err)
	}
	mounts, err := parseMountinfo(content)
	if err != nil {
		return -1, fmt.Errorf("looking for the cgroup2 file system: %s: %w", t.mountinfo, err)
	}
	failed := ErrNoCgroup2
	for _, mount := range mounts {
		fd, err := openCgroup2(mount.point)
		if err == nil {
			t.mount = mount
			return fd, nil
		}
		failed = fmt.Errorf("%w; %w", failed, err)
	}
	return -1, failed
}

// openCgroup2 opens a mount point, unless another file system is mounted over it.
func openCgroup2(point string) (int, error) {
	fd, err := openDir(unix.AT_FDCWD, point)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", point, err)
	}
	var stat unix.Statfs_t
	//nolint:unconvert // the type of Type is not the same on all architectures
	if err := unix.Fstatfs(fd, &stat); err != nil || int64(stat.Type) != unix.CGROUP2_SUPER_MAGIC {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("another file system is mounted over %s", point)
	}
	return fd, nil
}

func (t *cgroupFS) each(visit func(id uint64, path string) bool) error {
	root, err := t.open()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	var stat unix.Stat_t
	if err := unix.Fstat(root, &stat); err != nil {
		return fmt.Errorf("reading %s: %w", t.mount.point, err)
	}
	prefix := t.prefix(stat.Ino)
	if !visit(stat.Ino, cmp.Or(prefix, "/")) {
		return nil
	}
	device := stat.Dev
	for unread := []string{"."}; len(unread) > 0; unread = unread[1:] {
		parent := unread[0]
		stop := false
		err := t.eachChild(root, parent, func(id uint64, name string) bool {
			name = filepath.Join(parent, name)
			stop = !visit(id, prefix+"/"+name)
			// A cgroup without others in it, as most are, need not be opened: it has no links but . and the
			// one in its parent (kernfs_refresh_inode, fs/kernfs/inode.c).
			const leaf = 2
			err := unix.Fstatat(root, name, &stat, unix.AT_SYMLINK_NOFOLLOW)
			if err == nil && stat.Dev == device && stat.Nlink > leaf {
				unread = append(unread, name)
			}
			return !stop
		})
		switch {
		case stop:
			return nil
		case err != nil && !isBeyondReach(err):
			return fmt.Errorf("reading %s: %w", filepath.Join(t.mount.point, parent), err)
		}
	}
	return nil
}

// prefix is the path of the cgroup that is mounted; empty for the root of the hierarchy, which has the first inode number
// (kernfs_create_root, fs/kernfs/dir.c) whatever the reader's cgroup namespace calls it.
func (t *cgroupFS) prefix(inode uint64) string {
	if inode == 1 || t.mount.root == "/" {
		return ""
	}
	return t.mount.root
}

// isBeyondReach tells whether the error is that of a directory that cannot be read, or is not there any more: nothing that
// would pass, and nothing that keeps others from being read.
func isBeyondReach(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EACCES) ||
		errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENAMETOOLONG)
}

// eachChild calls child with the directories in a directory, until it returns false.
func (t *cgroupFS) eachChild(root int, path string, child func(inode uint64, name string) bool) error {
	fd, err := openDir(root, path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return procfs.EachEntry(fd, t.names[:], subdir(child))
}

func openDir(at int, path string) (int, error) {
	for {
		fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// subdir makes what goes through the directories of what goes through all entries.
func subdir(child func(inode uint64, name string) bool) func(procfs.DirEntry) bool {
	return func(e procfs.DirEntry) bool {
		if !e.IsDir {
			return true
		}
		name := string(e.Name[:len(e.Name)-1])
		return name == "." || name == ".." || child(e.Inode, name)
	}
}
