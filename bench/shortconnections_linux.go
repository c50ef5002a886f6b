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
	shortRate        = connectsRate
)

const (
	eventDelay           = 200 * time.Millisecond // the kernel sends the close events from a work queue
	socketsPerConnection = 2
)

// startShortConnections measures a gather with the defaults. The cost includes the close events of short connections, which
// are received before the gather.
func startShortConnections(task) (gather, error) {
	load, err := startChurn()
	if err != nil {
		return nil, err
	}
	gatherOnce, err := startWithOwners(ownersBPF, fmt.Sprintf(`
namespaces = ["self", "%d"]
closed_connections = "on"
`, load.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	var count closedCounter
	return pluginGather(func() (*tally, error) {
		if err := runChurn(load, loadRequest{Do: doChurn, N: shortConnections}); err != nil {
			return &tally{}, err
		}
		acc, err := gatherOnce()
		return acc, errors.Join(err, count.add(acc, socketsPerConnection*shortConnections))
	}, ownersBPF, defaults), nil
}

// startChurn starts a load process in a new network namespace.
func startChurn() (*child, error) {
	load, err := startChildIn(context.Background(), unix.CLONE_NEWNET, roleLoad, "churn", loadNameEnv+"=churn")
	if errors.Is(err, fs.ErrPermission) {
		return nil, unavailable(fmt.Errorf("a network namespace requires CAP_SYS_ADMIN: %w", err))
	}
	if err != nil {
		return nil, err
	}
	_, err = callLoad(load, loadRequest{Do: doListen, N: acceptBatch(), Isolated: true})
	return load, err
}

// runChurn makes the process open and close connections. It returns when their close events have been sent.
func runChurn(load *child, request loadRequest) error {
	if _, err := callLoad(load, request); err != nil {
		return err
	}
	time.Sleep(eventDelay)
	return nil
}

// closedCounter counts the closed sockets that the gathers of a plugin see.
type closedCounter struct {
	total    int // since the plugin started
	last     int // in the last gather
	hasBegun bool
}

// add fails if a gather saw less than want sockets. The first one is not checked: counters begin with 0.
func (c *closedCounter) add(acc *tally, want int) error {
	const minShare = 0.95 // late events count in the next gather
	isFirst := !c.hasBegun
	c.last, c.total, c.hasBegun = acc.closed-c.total, acc.closed, true
	if !isFirst && float64(c.last) < minShare*float64(want) {
		return fmt.Errorf("received close events of %d sockets, want %d", c.last, want)
	}
	return nil
}

// churn opens n connections to the listener of this process, and closes each immediately. If halfRefused is true, every second
// one is to a port without a listener instead.
func churn(listener, port, n int, halfRefused bool) error {
	reserved, refusing, err := bind() // else the kernel could choose it as the local port of a connection
	if err != nil {
		return err
	}
	defer unix.Close(reserved)
	begin := time.Now()
	for i := range n {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / shortRate)))
		if halfRefused && i%2 == 1 {
			err = beRefused(refusing)
		} else {
			err = openAndClose(listener, port)
		}
		if err != nil {
			return fmt.Errorf("after %d of %d: %w", i, n, err)
		}
	}
	return nil
}

func openAndClose(listener, port int) error {
	client, err := connect(port)
	if err != nil {
		return err
	}
	server, err := accept(listener)
	return errors.Join(err, unix.Close(client), closeIfOpen(server))
}

// beRefused connects to a port without a listener.
func beRefused(port int) error {
	client, err := openSocket()
	if err != nil {
		return err
	}
	err = unix.Connect(client, &unix.SockaddrInet4{Addr: loopback, Port: port})
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return unix.Close(client)
	case err == nil:
		err = errors.New("the connection was not refused")
	}
	return errors.Join(fmt.Errorf("connecting to port %d, which has no listener: %w", port, err), unix.Close(client))
}

func closeIfOpen(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}
