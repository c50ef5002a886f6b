package netstat_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// Print the connections that wait in the accept queue of each listener, and the processes that listen.
func ExampleNewScanner() {
	defer useExampleProc()() // for a fixed output

	scanner, err := netstat.NewScanner(netstat.ScannerConfig{
		ProcRoot:   netstat.ProcRoot, // leave it out to read the host
		Transports: []netstat.Transport{netstat.TransportTCP},
		Warn:       func(err error) { fmt.Fprintln(os.Stderr, err) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer scanner.Close()

	for socket, err := range scanner.Sockets(context.Background()) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err) // a part that failed; the others follow
			continue
		}
		if !socket.Has(netstat.FieldAcceptQueue) {
			continue
		}
		fmt.Printf("%s: %d waiting", socket.Local, socket.AcceptQueue)
		for _, process := range socket.Owners() {
			fmt.Printf(", %s (%d)", process.Name, process.PID)
		}
		fmt.Println()
	}
	// Output:
	// 127.0.0.1:5432: 0 waiting
	// 0.0.0.0:80: 1 waiting, nginx (1001), nginx (1002)
	// [::]:22: 0 waiting, systemd (1), sshd (700)
	// [::1]:8080: 0 waiting, java (1003)
}

// Print the attempts to connect that fail within a minute: the process, the peer, the reason and the time until then. It needs
// CAP_BPF and CAP_PERFMON.
func ExampleOutcome() {
	scanner, err := netstat.NewScanner(netstat.ScannerConfig{
		OwnerMethod: netstat.OwnersBPF,
		Transports:  []netstat.Transport{netstat.TransportTCP},
		Closed:      netstat.ClosedRequired,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer scanner.Close()

	for range 6 {
		time.Sleep(10 * time.Second)
		printFailedConnects(os.Stdout, scanner)
	}
}

func printFailedConnects(to io.Writer, scanner *netstat.Scanner) {
	for socket, err := range scanner.Sockets(context.Background()) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		if !socket.Outcome.IsFailedConnect() {
			continue
		}
		name := "unknown process"
		if process, _ := socket.Initiator(); process != nil {
			name = process.Name
		}
		attempt, _ := socket.Attempt()
		fmt.Fprintf(to, "%s to %s: %s after %v\n", name, socket.Remote, socket.Outcome, attempt.ConnectTime)
	}
}
