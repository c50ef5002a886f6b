package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// Connections that begin and end between two gathers, in a network namespace of their own: the other rows do not hear of them.
const (
	shortConnections = 20_000
	shortRate        = 10_000 // a second
)

// startClosed gathers with defaults, and counts what it takes to hear of short connections as part of the gather.
func startClosed(task) (gather, error) {
	visitor, err := startChildIn(context.Background(), unix.CLONE_NEWNET, roleLoad, "visitor", loadNameEnv+"=visitor")
	if errors.Is(err, fs.ErrPermission) {
		return nil, unavailable(fmt.Errorf("a network namespace wants CAP_SYS_ADMIN: %w", err))
	}
	if err != nil {
		return nil, err
	}
	if _, err := loadDo(visitor, loadRequest{Do: doListen, N: connectBatch(), Isolated: true}); err != nil {
		return nil, err
	}
	once, err := startPlugin("procnetstat", fmt.Sprintf(`
owners = %q
namespaces = ["self", "%d"]
closed_connections = "on"
`, ownersBPF, visitor.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	before := 0
	return func() (sample, error) {
		visit := func() (*tally, error) {
			if _, err := loadDo(visitor, loadRequest{Do: doVisit, N: shortConnections}); err != nil {
				return nil, err
			}
			const late = 200 * time.Millisecond // the kernel tells from a work queue
			time.Sleep(late)
			return once()
		}
		return ownGather(func() (*tally, error) {
			seen, err := visit()
			if err != nil {
				return &tally{}, err
			}
			const both, nearly = 2, 0.95 // what is told of later counts the next time
			if closed := seen.closed - before; before > 0 && float64(closed) < nearly*both*shortConnections {
				return seen, fmt.Errorf("it heard of %d closed sockets of %d", closed, both*shortConnections)
			}
			before = seen.closed
			return seen, nil
		}, ownersBPF, defaults)()
	}, nil
}

// visit opens connections to the listener of this process, and ends each at once.
func visit(listener, port, n int) error {
	began := time.Now()
	for i := range n {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / shortRate)))
		if err := visitOnce(listener, port); err != nil {
			return fmt.Errorf("after %d of %d: %w", i, n, err)
		}
	}
	return nil
}

func visitOnce(listener, port int) error {
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
