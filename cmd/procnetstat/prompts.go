package main

import (
	"bufio"
	"errors"
	"io"
	"log"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// prompts is a pipe that stands in for standard input: the shim gathers for every line that it reads there, and ends
// when it ends. So signals, which the shim does not know as prompts, need no second way to a gather.
type prompts struct {
	reader, writer *os.File

	waiting atomic.Bool   // no gather has begun since the last prompt
	begun   chan struct{} // a gather that was waited for has begun
}

func newPrompts() (*prompts, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &prompts{reader: r, writer: w, begun: make(chan struct{}, 1)}, nil
}

// forward prompts for every line and every signal until the lines end or a signal says so. It ends the shim, but not
// before the last prompt is answered: the shim drops a prompt that is followed at once by the end of its input.
func (p *prompts) forward(lines <-chan struct{}, signals *signals) {
	defer p.writer.Close()
	for lines != nil || p.waiting.Load() {
		select {
		case _, more := <-lines:
			if !more {
				lines = nil
				continue
			}
			p.ask()
		case <-signals.gather:
			p.ask()
		case <-p.begun:
		case <-signals.end:
			return
		}
	}
}

func (p *prompts) ask() {
	p.waiting.Store(true)
	if _, err := p.writer.WriteString("\n"); err != nil {
		log.Printf("E! asking for a gather: %v", err)
	}
}

// answered is to be called when a gather begins.
func (p *prompts) answered() {
	if p.waiting.Swap(false) {
		select {
		case p.begun <- struct{}{}:
		default: // forward has not come to look since the last time
		}
	}
}

// lines yields once for every line of r, of any length, and is closed at its end.
func lines(r io.Reader) <-chan struct{} {
	found := make(chan struct{})
	go func() {
		defer close(found)
		buffered := bufio.NewReader(r)
		pending := false // a line has begun
		for {
			part, err := buffered.ReadSlice('\n')
			pending = pending || len(part) > 0
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if pending {
				found <- struct{}{}
				pending = false
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					log.Printf("W! standard input ended: %v", err)
				}
				return
			}
		}
	}()
	return found
}

// signals are those that the process has got. Several of a kind before they are looked at count as one.
type signals struct {
	gather, end chan os.Signal
}

func watchSignals(once bool) *signals {
	s := &signals{gather: make(chan os.Signal, 1), end: make(chan os.Signal, 1)}
	signal.Notify(s.end, syscall.SIGINT, syscall.SIGTERM)
	if !once && len(gatherSignals) > 0 { // Notify takes no signals for all signals
		signal.Notify(s.gather, gatherSignals...)
	}
	return s
}
