// Package cgroup finds the cgroups of sockets and processes on Linux, and the systemd unit, container or pod that a cgroup
// is for.
//
// [Tree] has the paths of cgroups v2 by their ids, which sock_diag reports for sockets. It needs a mounted cgroup2 file
// system and Linux 5.5, since when the id is the inode number of the directory. [ParseProcess] decodes /proc/<pid>/cgroup,
// which has the paths of a process's cgroups, v1 too. [WorkloadOf] recognizes the names that systemd, container runtimes and
// kubelet give to cgroups. Any user may read all of it.
package cgroup
