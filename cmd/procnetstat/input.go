package main

import (
	"sync/atomic"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/models"
)

// guardedInput wraps the plugin for the shim. It logs and records errors, because the shim prints an error of Gather in a
// form that execd cannot parse, and returns nil after a failed write.
type guardedInput struct {
	telegraf.Input
	log      telegraf.Logger
	onGather func() // called before each gather

	failed  atomic.Bool // a Gather returned an error
	stopped atomic.Bool // the shim stopped normally, so all metrics were written
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
	g.onGather()
	if err := g.Input.Gather(acc); err != nil {
		g.failed.Store(true)
		g.log.Errorf("Failed to gather metrics: %v", err)
	}
	return nil
}

// Stop is called after the last Gather, unless a write failed. The shim writes the last metrics after it.
func (g *guardedInput) Stop() {
	if p, ok := g.Input.(telegraf.ServiceInput); ok {
		p.Stop()
	}
	g.stopped.Store(true)
}
