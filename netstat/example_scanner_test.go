package netstat_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// How many connections wait at each listener to be accepted, and by whom?
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

// What did the connections carry that end?
func ExampleClosedSockets() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for socket, err := range netstat.ClosedSockets(ctx) {
		lost := (*netstat.LostError)(nil)
		switch {
		case errors.As(err, &lost):
			fmt.Println(lost.Sockets, "more")
		case errors.Is(err, context.DeadlineExceeded):
			return
		case err != nil:
			fmt.Fprintln(os.Stderr, err)
		case socket.Has(netstat.FieldTCPBytes):
			fmt.Println(socket.Local, socket.Remote, socket.TCP.BytesAcked, socket.TCP.BytesReceived)
		}
	}
}
