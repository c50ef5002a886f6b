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

// load is the connections that are there to be found, by IPv4 on the loopback interface.
type load struct {
	pairs []pair
	batch int
}

// pair is two processes, and the connections from one to the other.
type pair struct {
	server, client *child
	port           int
	connections    int
}

// pids are the processes that are named in the order of the pairs: server, client, server, …
func (l *load) pids() []int {
	var pids []int
	for _, p := range l.pairs {
		pids = append(pids, p.server.cmd.Process.Pid, p.client.cmd.Process.Pid)
	}
	return pids
}

// startLoad starts the processes, with a listener in each server and no connections.
func startLoad(ctx context.Context, processes int) (*load, error) {
	l := &load{batch: connectBatch()}
	for range processes / 2 {
		var p pair
		for _, of := range []struct {
			process **child
			name    string
		}{{&p.server, "server"}, {&p.client, "client"}} {
			started, err := startChild(ctx, roleLoad, of.name, loadNameEnv+"="+of.name)
			if err != nil {
				l.end()
				return nil, err
			}
			*of.process = started
		}
		l.pairs = append(l.pairs, p)
	}
	return l, l.each(func(p *pair, _ int) (err error) {
		p.port, err = loadDo(p.server, loadRequest{Do: doListen, N: l.batch})
		return err
	})
}

// connectBatch is how many connections a listener has waiting at once: the kernel lets no more than somaxconn.
func connectBatch() int {
	const most = 1024
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return 100
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || limit < 1 {
		return 100
	}
	return min(most, limit)
}

// grow makes connections until there are so many sockets.
func (l *load) grow(ctx context.Context, sockets int) error {
	return l.each(func(p *pair, i int) error {
		for want := share(sockets/2, len(l.pairs), i); p.connections < want; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(want-p.connections, l.batch)
			if _, err := loadDo(p.client, loadRequest{Do: doConnect, Port: p.port, N: n}); err != nil {
				return err
			}
			if _, err := loadDo(p.server, loadRequest{Do: doAccept, N: n}); err != nil {
				return err
			}
			p.connections += n
		}
		return nil
	})
}

// each does something with all pairs at the same time.
func (l *load) each(do func(p *pair, i int) error) error {
	errs := make([]error, len(l.pairs))
	var wg sync.WaitGroup
	for i := range l.pairs {
		wg.Go(func() { errs[i] = do(&l.pairs[i], i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func loadDo(process *child, request loadRequest) (port int, err error) {
	var reply loadReply
	err = process.ask(request, &reply, 2*time.Minute)
	if err == nil && reply.Error != "" {
		err = fmt.Errorf("making connections: a %s: %s", process.name, reply.Error)
	}
	return reply.Port, err
}

func (l *load) end() {
	for _, p := range l.pairs {
		p.server.end()
		p.client.end()
	}
}
