package netstat_test

import (
	"context"
	"fmt"
	"os"

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
