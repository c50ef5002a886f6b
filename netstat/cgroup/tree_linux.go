package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// cgroup2 reads the directories of a cgroup2 file system. The id of a cgroup is the inode number of its directory, since
// Linux 5.5 (kernfs_ino, include/linux/kernfs.h).
type cgroup2 struct {
	mountinfo string
	mount     mount
	names     [32 << 10]byte
}

var _ fileSystem = (*cgroup2)(nil)

func openFileSystem(procRoot string) (fileSystem, error) {
	if !procfs.IsMounted(procRoot) {
		return nil, fmt.Errorf("%w: %s is not a proc file system but a copy of one", ErrNotMounted, procRoot)
	}
	c := &cgroup2{mountinfo: filepath.Join(procRoot, "self", "mountinfo")}
	root, err := c.open()
	if err != nil {
		return nil, err
	}
	return c, unix.Close(root)
}

// open opens the mount point. It must not stay open: that would prevent unmounting.
func (c *cgroup2) open() (fd int, err error) {
	if c.mount.point != "" {
		if fd, err := openMountPoint(c.mount.point); err == nil {
			return fd, nil
		}
	}
	content, err := os.ReadFile(c.mountinfo)
	if err != nil {
		return -1, fmt.Errorf("looking for the cgroup2 file system: %w", err)
	}
	mounts, err := parseMountinfo(content)
	if err != nil {
		return -1, fmt.Errorf("looking for the cgroup2 file system: %s: %w", c.mountinfo, err)
	}
	failed := ErrNotMounted
	for _, mount := range mounts {
		fd, err := openMountPoint(mount.point)
		if err == nil {
			c.mount = mount
			return fd, nil
		}
		failed = fmt.Errorf("%w; %w", failed, err)
	}
	return -1, failed
}

// openMountPoint opens a mount point, unless another file system is mounted over it.
func openMountPoint(point string) (int, error) {
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

func (c *cgroup2) each(visit func(id uint64, path string) bool) error {
	root, err := c.open()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	var stat unix.Stat_t
	if err := unix.Fstat(root, &stat); err != nil {
		return fmt.Errorf("reading %s: %w", c.mount.point, err)
	}
	prefix := c.prefix(stat.Ino)
	if !visit(stat.Ino, cmp.Or(prefix, "/")) {
		return nil
	}
	device := stat.Dev
	for unread := []string{"."}; len(unread) > 0; unread = unread[1:] {
		parent := unread[0]
		stop := false
		err := c.eachChild(root, parent, func(id uint64, name string) bool {
			name = filepath.Join(parent, name)
			stop = !visit(id, prefix+"/"+name)
			// Skip cgroups without children: they have only two links, "." and the one in the parent
			// (kernfs_refresh_inode, fs/kernfs/inode.c).
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
		case err != nil && !isUnreadable(err):
			return fmt.Errorf("reading %s: %w", filepath.Join(c.mount.point, parent), err)
		}
	}
	return nil
}

// prefix returns the path of the mounted cgroup; empty for the root of the hierarchy, which always has inode number 1
// (kernfs_create_root, fs/kernfs/dir.c), also if the reader's cgroup namespace has another root.
func (c *cgroup2) prefix(inode uint64) string {
	if inode == 1 || c.mount.root == "/" {
		return ""
	}
	return c.mount.root
}

// isUnreadable reports whether the error concerns one directory only, which cannot be read or no longer exists. The walk skips
// it.
func isUnreadable(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EACCES) ||
		errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENAMETOOLONG)
}

// eachChild calls child with each subdirectory until it returns false.
func (c *cgroup2) eachChild(root int, path string, child func(inode uint64, name string) bool) error {
	fd, err := openDir(root, path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return procfs.EachEntry(fd, c.names[:], subdir(child))
}

func openDir(at int, path string) (int, error) {
	for {
		fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// subdir returns a function that calls child for entries that are directories.
func subdir(child func(inode uint64, name string) bool) func(procfs.DirEntry) bool {
	return func(e procfs.DirEntry) bool {
		if !e.IsDir {
			return true
		}
		name := string(e.Name[:len(e.Name)-1])
		return name == "." || name == ".." || child(e.Inode, name)
	}
}
