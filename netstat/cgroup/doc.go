// Package cgroup resolves the cgroups of sockets and processes on Linux to paths, and paths to systemd units, containers and
// pods: see cgroups(7).
//
// [Tree] maps the id of a cgroup v2, which sock_diag reports for a socket, to its path. It needs a mounted cgroup2 file system
// and Linux 5.5, where the id is the inode number of the directory (kernfs_ino, include/linux/kernfs.h). [ParseProcess] decodes
// /proc/<pid>/cgroup, for cgroups v1 and v2. [WorkloadOf] recognizes the cgroup names of systemd, container runtimes and
// kubelet. No privileges are needed.
package cgroup
