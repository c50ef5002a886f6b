package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// Connections that open and close between two gathers. They are in a separate network namespace, so that the other rows do
// not receive their events.
const (
	shortConnections = 20_000
	shortRate        = 10_000 // per second
)

// startShortConnections measures a gather with the defaults. The cost includes the close events of short connections, which
// are received before the gather.
func startShortConnections(task) (gather, error) {
	churn, err := startChildIn(context.Background(), unix.CLONE_NEWNET, roleLoad, "churn", loadNameEnv+"=churn")
	if errors.Is(err, fs.ErrPermission) {
		return nil, unavailable(fmt.Errorf("a network namespace requires CAP_SYS_ADMIN: %w", err))
	}
	if err != nil {
		return nil, err
	}
	if _, err := callLoad(churn, loadRequest{Do: doListen, N: acceptBatch(), Isolated: true}); err != nil {
		return nil, err
	}
	gatherOnce, err := startPlugin("procnetstat", fmt.Sprintf(`
owners = %q
namespaces = ["self", "%d"]
closed_connections = "on"
`, ownersBPF, churn.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	closedBefore := 0
	return pluginGather(func() (*tally, error) {
		if _, err := callLoad(churn, loadRequest{Do: doChurn, N: shortConnections}); err != nil {
			return &tally{}, err
		}
		const eventDelay = 200 * time.Millisecond // the kernel sends the events from a work queue
		time.Sleep(eventDelay)
		acc, err := gatherOnce()
		if err != nil {
			return acc, err
		}
		const socketsPerConnection, minShare = 2, 0.95 // late events count in the next gather
		if closed := acc.closed - closedBefore; closedBefore > 0 && float64(closed) < minShare*socketsPerConnection*shortConnections {
			return acc, fmt.Errorf("received close events of %d sockets, want %d", closed, socketsPerConnection*shortConnections)
		}
		closedBefore = acc.closed
		return acc, nil
	}, ownersBPF, defaults), nil
}

// openAndClose opens n connections to the listener of this process, and closes each immediately.
func openAndClose(listener, port, n int) error {
	begin := time.Now()
	for i := range n {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / shortRate)))
		if err := openAndCloseOne(listener, port); err != nil {
			return fmt.Errorf("after %d of %d: %w", i, n, err)
		}
	}
	return nil
}

func openAndCloseOne(listener, port int) error {
	client, err := connect(port)
	if err != nil {
		return err
	}
	server, err := accept(listener)
	return errors.Join(err, unix.Close(client), closeIfOpen(server))
}

func closeIfOpen(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}
