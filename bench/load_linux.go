package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// load is the connections to be found. They are IPv4 connections over loopback.
type load struct {
	pairs []pair
	batch int
}

// pair is a server process, a client process, and the connections between them.
type pair struct {
	server, client *child
	port           int
	connections    int
}

// pids returns the process ids in the order of the pairs: server, client, server, …
func (l *load) pids() []int {
	var pids []int
	for _, p := range l.pairs {
		pids = append(pids, p.server.cmd.Process.Pid, p.client.cmd.Process.Pid)
	}
	return pids
}

// startLoad starts the processes. Each server listens; there are no connections yet.
func startLoad(ctx context.Context, processes int) (*load, error) {
	l := &load{batch: acceptBatch()}
	for range processes / 2 {
		var p pair
		for _, member := range []struct {
			process **child
			name    string
		}{{&p.server, "server"}, {&p.client, "client"}} {
			started, err := startChild(ctx, roleLoad, member.name, loadNameEnv+"="+member.name)
			if err != nil {
				l.kill()
				return nil, err
			}
			*member.process = started
		}
		l.pairs = append(l.pairs, p)
	}
	return l, l.forEachPair(func(p *pair, _ int) (err error) {
		p.port, err = callLoad(p.server, loadRequest{Do: doListen, N: l.batch})
		return err
	})
}

// acceptBatch returns how many connections may wait in an accept queue: the kernel caps the backlog at somaxconn.
func acceptBatch() int {
	const maxBatch = 1024
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return 100
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || limit < 1 {
		return 100
	}
	return min(maxBatch, limit)
}

// growTo opens connections until there are this many sockets.
func (l *load) growTo(ctx context.Context, sockets int) error {
	return l.forEachPair(func(p *pair, i int) error {
		for want := connectionsOfPair(sockets/2, len(l.pairs), i); p.connections < want; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(want-p.connections, l.batch)
			if _, err := callLoad(p.client, loadRequest{Do: doConnect, Port: p.port, N: n}); err != nil {
				return err
			}
			if _, err := callLoad(p.server, loadRequest{Do: doAccept, N: n}); err != nil {
				return err
			}
			p.connections += n
		}
		return nil
	})
}

// forEachPair calls do for all pairs concurrently.
func (l *load) forEachPair(do func(p *pair, i int) error) error {
	errs := make([]error, len(l.pairs))
	var wg sync.WaitGroup
	for i := range l.pairs {
		wg.Go(func() { errs[i] = do(&l.pairs[i], i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func callLoad(process *child, request loadRequest) (port int, err error) {
	var reply loadReply
	err = process.call(request, &reply, 2*time.Minute)
	if err == nil && reply.Error != "" {
		err = fmt.Errorf("making connections: %s: %s", process.name, reply.Error)
	}
	return reply.Port, err
}

func (l *load) kill() {
	for _, p := range l.pairs {
		p.server.kill()
		p.client.kill()
	}
}
