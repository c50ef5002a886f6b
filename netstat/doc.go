// Package netstat reads the socket tables of Linux and finds the processes that hold the sockets.
//
// A [Scanner] iterates over all sockets and does not allocate per socket. It suits a program that reads the tables
// repeatedly on a busy host:
//
//	scanner, err := netstat.NewScanner(netstat.ScannerConfig{TCPInfo: true})
//	if err != nil {
//		return err
//	}
//	defer scanner.Close()
//	for socket, err := range scanner.Sockets(ctx) {
//		if err != nil {
//			log.Print(err) // one table failed; the others follow
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
// [TCP], [TCP6], [UDP] and the other values of [Protocol] return one table as a slice of [Connection]: the API of version 1.
//
// Package [github.com/procnetstat/procnetstat/netstat/cgroup] resolves [Socket].CgroupID to a systemd unit, container or pod.
//
// # Kernels
//
// Sockets come from sock_diag(7) (Linux 3.3; modules tcp_diag, udp_diag, raw_diag and unix_diag) or from /proc/net. The
// constants of [Field] name the parts of a [Socket] that need sock_diag or a later kernel. Owners come from a BPF iterator
// (Linux 5.11 with BTF, amd64 and arm64, initial PID namespace) or from the links in /proc/<pid>/fd. On other systems the
// package only reads copies of a proc file system.
//
// # Privileges
//
// Any user can read all sockets of its network namespace, and its own processes. Other users' processes need CAP_BPF and
// CAP_PERFMON for the BPF iterator, or CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE for /proc/<pid>/fd. [Process.Exe] needs
// CAP_SYS_PTRACE. Other network namespaces need CAP_SYS_ADMIN, and CAP_SYS_PTRACE if they have no name in /run/netns; without
// them the scanner reads the tables of a process in the namespace. [ScanStats].Denied counts the processes whose descriptors
// the scanner may not read. A missing privilege is an error only if [ScannerConfig] requires what needs it.
//
// # Network namespaces
//
// A Scanner reads its own network namespace, or those in [ScannerConfig].Namespaces. With sock_diag its own is that of the
// thread that called [NewScanner], with procfs that of the process. It keeps a namespace alive until the scan after its end.
//
// # Closed sockets
//
// [ScannerConfig].Closed adds the TCP sockets that the kernel has destroyed since the last scan, with their final counts.
// Each is returned once at most, after the live sockets of its namespace. The subscription starts before the first read:
// what the kernel could not report is counted in [ScanStats].ClosedLost. docs/developers/CLOSED.md in the repository has the
// whole contract.
//
// With OwnersBPF a BPF program at the tracepoint inet_sock_set_state (Linux 5.12) also tells how each ended: see [Outcome]. Each
// attempt to connect that fails is a closed socket of its own, with its addresses and its process, as soon as it has failed. A
// connection that is reset or times out while its process still holds the socket is returned then, in the state TCPClose and not
// Closed, and once more when it is destroyed. [Socket.Attempt] says how long a connect took. [ScanStats].AttemptsLost counts
// what was lost.
//
// # Consistency
//
// The kernel dumps its tables in pieces: a scan is no snapshot, and can miss or repeat a socket that changes meanwhile.
// [ScanStats].Interrupted counts the tables that the kernel reports as changed during the dump.
package netstat
