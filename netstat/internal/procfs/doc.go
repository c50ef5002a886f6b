// Package procfs reads the proc file system of Linux: see proc(5). Its parsers take bytes and do no I/O. [Dir] and [SocketWalk]
// read the directories of a proc file system, or of a copy of one, whose root is handed in.
//
// Nothing here needs a privilege. The descriptors of other users' processes take CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
package procfs
