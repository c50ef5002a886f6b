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
	"time"
)

// promptLimit is the time after which a program that does not poll warns that it was never prompted.
const promptLimit = time.Minute

// prompts is a pipe that replaces standard input: the shim gathers for every line that it reads there, and stops at its end.
// Signals write to it too, because the shim does not handle them as prompts.
type prompts struct {
	reader, writer *os.File

	pending atomic.Bool   // no gather has started since the last prompt
	started chan struct{} // a gather for a pending prompt has started
}

func newPrompts() (*prompts, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &prompts{reader: r, writer: w, started: make(chan struct{}, 1)}, nil
}

// forward prompts for every line and every signal, until the lines end or a signal stops it. Then it stops the shim, but not
// before the gather of the last prompt has started: the shim drops a prompt that is followed immediately by the end of input.
//
// It warns if overdue, unless it is nil, receives before the first prompt: execd sends none with signal = "none", its default.
func (p *prompts) forward(lines <-chan struct{}, signals *signals, overdue <-chan time.Time) {
	defer p.writer.Close()
	for lines != nil || p.pending.Load() {
		select {
		case _, more := <-lines:
			if !more {
				lines = nil
				continue
			}
			overdue = nil
			p.prompt()
		case <-signals.gather:
			overdue = nil
			p.prompt()
		case <-overdue:
			log.Printf("W! No gather requested for %v: unless interval is longer, set signal = \"STDIN\" in the "+
				"[[inputs.execd]] table", promptLimit)
		case <-p.started:
		case <-signals.stop:
			return
		}
	}
}

func (p *prompts) prompt() {
	p.pending.Store(true)
	if _, err := p.writer.WriteString("\n"); err != nil {
		log.Printf("E! Cannot prompt for a gather: %v", err)
	}
}

// gatherStarted must be called before each gather.
func (p *prompts) gatherStarted() {
	if p.pending.Swap(false) {
		select {
		case p.started <- struct{}{}:
		default: // forward has not received the previous one yet
		}
	}
}

// lines returns a channel that receives a value for every line of r, of any length, and is closed at the end of r.
func lines(r io.Reader) <-chan struct{} {
	out := make(chan struct{})
	go func() {
		defer close(out)
		buffered := bufio.NewReader(r)
		lineStarted := false
		for {
			part, err := buffered.ReadSlice('\n')
			lineStarted = lineStarted || len(part) > 0
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if lineStarted {
				out <- struct{}{}
				lineStarted = false
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					log.Printf("W! Cannot read standard input: %v", err)
				}
				return
			}
		}
	}()
	return out
}

// signals are the received signals. Each channel holds one: signals that arrive before it is read are merged.
type signals struct {
	gather, stop chan os.Signal
}

func watchSignals(once bool) *signals {
	s := &signals{gather: make(chan os.Signal, 1), stop: make(chan os.Signal, 1)}
	signal.Notify(s.stop, syscall.SIGINT, syscall.SIGTERM)
	if !once && len(gatherSignals) > 0 { // without signals, Notify relays all signals
		signal.Notify(s.gather, gatherSignals...)
	}
	return s
}
