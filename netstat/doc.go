// Package netstat reads the socket tables of Linux, and finds the processes behind the sockets.
//
// A [Scanner] goes through the sockets one at a time, and does not allocate per socket. It is for a program that looks again
// and again, at hosts with many sockets:
//
//	scanner, err := netstat.NewScanner(netstat.ScannerConfig{TCPInfo: true})
//	if err != nil {
//		return err
//	}
//	defer scanner.Close()
//	for socket, err := range scanner.Sockets(ctx) {
//		if err != nil {
//			log.Print(err) // a part that failed; the others follow
//			continue
//		}
//		fmt.Println(socket.Transport, socket.State, socket.Local, socket.Remote)
//		if socket.Has(netstat.FieldTCPInfo) {
//			fmt.Println("round-trip time:", socket.TCP.RTT, "µs")
//		}
//		for _, process := range socket.Owners() {
//			fmt.Println("held by", process.PID, process.Name)
//		}
//	}
//
// [TCP], [TCP6], [UDP], [UDP6] and the other values of [Protocol] return one table as a slice of [Connection], which is the
// API of version 1. It is for a program that looks once:
//
//	connections, err := netstat.TCP.Connections()
//
// Package [github.com/procnetstat/procnetstat/netstat/cgroup] has the path of the cgroup that a socket was made in, by
// [Socket].CgroupID, and the systemd unit, container or pod that it is for. [ReadSockstat] reads what the kernel counts of its sockets by itself. A [Filter] chooses
// sockets by their addresses; TCP connections are filtered in the kernel: see ScannerConfig.Connections.
//
// # Kernels
//
// Sockets come from sock_diag(7), Linux 3.3, by one kernel module for each kind (tcp_diag, udp_diag, raw_diag, unix_diag), or
// from the tables in /proc/net, which every kernel has. The constants of [Field] say which parts of a [Socket] want
// sock_diag or a later kernel; [Socket.Has] says which a socket has. On other systems than Linux the package reads copies of
// a proc file system only.
//
// Owners come from a BPF iterator, Linux 5.11 with BTF, amd64 and arm64, or from the links in /proc/<pid>/fd, and
// of threads that have descriptors of their own. The iterator sees pids of the initial PID namespace:
// where the reader or [ScannerConfig].ProcRoot is in another one, the links are read.
//
// # Privileges
//
// Any user may read all sockets of a network namespace that the process is in, and the processes of that user. To find
// other users' processes, CAP_BPF and CAP_PERFMON run the BPF iterator, which sees all. Without it, CAP_DAC_READ_SEARCH opens /proc/<pid>/fd and CAP_SYS_PTRACE reads the links in it: it takes
// both. [Process.Exe] takes CAP_SYS_PTRACE; names, command lines and user ids are open to all, unless proc is mounted with
// hidepid. [ScanStats].Denied counts the processes that could not be looked into. Nothing fails for want of a privilege, unless
// [ScannerConfig] requires what it takes.
//
// # Network namespaces
//
// A Scanner reads its own network namespace, or those that [ScannerConfig].Namespaces names. Its own is with sock_diag that of
// the thread that called [NewScanner], from procfs that of the process. In others a thread opens a netlink socket, once, and comes
// back, which takes CAP_SYS_ADMIN, and CAP_SYS_PTRACE for one that has no name in /run/netns. Without them the tables of a process
// in it are read, which any user may; one that has a name and no process is not read then. Without CAP_SYS_PTRACE the number and
// the name of a namespace in which are others' processes only are not known.
//
// A namespace that ends is kept by the kernel until the next scan, which lets go of it. One that only threads are in, other than
// the first of their process, is not found. Processes are found in every namespace, but in a container only those that its proc
// file system shows.
//
// # Closed sockets
//
// A connection can begin and end between two scans. [ScannerConfig].Closed asks for the TCP sockets that the kernel has destroyed too:
// [Socket].Closed, with the counts of bytes and segments that they ended with. The kernel tells of them (the groups
// SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY of NETLINK_SOCK_DIAG, sock_diag_broadcast_destroy in net/core/sock_diag.c),
// which takes Linux 4.12 and no privilege.
//
// Whoever adds up what connections carried keeps, by [Socket].Cookie, what was seen of those that live, and is told of each socket
// closed once at most, and live before that only:
//
//   - The scanner hears of a namespace before it first reads it, and hands out closed sockets after the live ones of the namespace.
//     The kernel tells of a socket after it has taken it out of its tables: what is told of by then was read before, or never is.
//   - The processes are looked at before the tables are read. A connection that was opened since then, and a closed one, is of the process
//     that began it, where BPF programs note that.
//   - Sockets that had a port and never a peer come first of the closed ones, so that a listener is known to be closed before what came
//     in through it.
//   - A socket that is destroyed while its table is read, or between two scans, is handed out closed at the end of the one or the other.
//     The kernel tells of it from a work queue: it can be a scan later, in which the socket is in no table any more.
//   - Who closes a connection first leaves a stub in TIME_WAIT, or FIN_WAIT2, for a minute: the socket itself is destroyed at once. The
//     stub is handed out after that, live and with the same cookie. It has no TCP, and nothing to count.
//   - A socket that a process holds is not destroyed. After a reset, or when both ends have closed, it is in no table, and closed only when
//     the process closes it, perhaps hours later: a cookie that is not seen live is to be kept until then, or counted then as a whole.
//   - What the kernel had no room to tell of is counted by [ScanStats].ClosedLost, sockets that never had a peer included. Of such a
//     connection nothing is known but what was seen of it live, if it was. Where the kernel has no memory for the message itself, it
//     does not count it.
//   - The kernel does not tell of sockets of its own, such as those of NFS. A connection that was never established is not told of at the
//     end that was to accept it.
//   - A connection that is aborted (SO_LINGER with a time of 0) or refused has lost its remote port, and all its counts are 0. So has what a
//     process has disconnected: connect(2) with AF_UNSPEC.
//
// BytesReceived of a socket counts the FIN of its peer, and BytesAcked the own one, and the SYN of the end that connected. Who closes first
// has the FIN of the peer only if it came with the acknowledgment of its own.
//
// When a namespace has ended, the next scan hands out what was destroyed in it until then. Sockets that the kernel itself brings to an end
// after that are not told of. A process that began a connection is [Socket.Owners] of the closed socket where BPF programs note it, also
// if it has gone. Nothing is known of closed sockets of a namespace that is read from procfs.
//
// # Consistency
//
// The kernel hands out its tables piece by piece, so a scan is no snapshot: while sockets come and go it can miss one or
// show one twice, and a process may have closed what it is shown to hold. [ScanStats].Interrupted counts the tables that the
// kernel itself says changed meanwhile; it need not say so. The order within a table is the kernel's own.
package netstat
