package main

import (
	"sync/atomic"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/models"
)

// guardedInput is the plugin as the shim sees it. It tells how the run went, which the shim keeps to itself: the shim
// prints an error of Gather in a form that execd does not know, and returns nil when it gave up writing.
type guardedInput struct {
	telegraf.Input
	log       telegraf.Logger
	gathering func() // called when a gather begins

	failed  atomic.Bool // a Gather returned an error
	stopped atomic.Bool // the gathering ended because that was asked for, and so all metrics were written
}

var _ telegraf.ServiceInput = (*guardedInput)(nil)

func (g *guardedInput) Init() error {
	models.SetLoggerOnPlugin(g.Input, g.log)
	if p, ok := g.Input.(telegraf.Initializer); ok {
		return p.Init()
	}
	return nil
}

func (g *guardedInput) Start(acc telegraf.Accumulator) error {
	if p, ok := g.Input.(telegraf.ServiceInput); ok {
		return p.Start(acc)
	}
	return nil
}

func (g *guardedInput) Gather(acc telegraf.Accumulator) error {
	g.gathering()
	if err := g.Input.Gather(acc); err != nil {
		g.failed.Store(true)
		g.log.Errorf("failed to gather metrics: %v", err)
	}
	return nil
}

// Stop is called by the shim after the last Gather, and before it writes the last metrics and returns.
func (g *guardedInput) Stop() {
	if p, ok := g.Input.(telegraf.ServiceInput); ok {
		p.Stop()
	}
	g.stopped.Store(true)
}
