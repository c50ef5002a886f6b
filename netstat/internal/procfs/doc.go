// Package procfs reads the proc file system of Linux: see proc(5). Its parsers take bytes and do no I/O. [Dir] and [SocketWalk]
// read a proc file system, or a copy of one, below a given root.
//
// Only the descriptors of other users' processes need privileges: CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
package procfs
