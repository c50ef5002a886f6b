package main

import (
	"errors"
	"fmt"
)

const connectsNote = "30,000 connects in 3 seconds, half of them refused; CPU is what they add to a gather"

// closedByConnects is the number of sockets of the connects: half are refused, half accepted.
const closedByConnects = connects/2 + socketsPerConnection*connects/2

// connectsSubject is the plugin while a process in another network namespace connects. It records connects only with BPF
// owners. The cost is that of the connects: the gathers themselves are excluded, and the BPF programs included.
func connectsSubject(name, owners string, floors ...string) subject {
	return subject{
		name: name, group: groupOurs, floors: floors, ownLoad: true, note: connectsNote,
		start: func(task) (gather, error) { return startConnects(owners) },
	}
}

// connectsPlugin is a plugin whose cost for connects is measured.
type connectsPlugin struct {
	load       *child
	gatherOnce func() (*tally, error)
	owners     string
	closed     closedCounter
}

func startConnects(owners string) (gather, error) {
	load, err := startChurn()
	if err != nil {
		return nil, err
	}
	gatherOnce, err := startWithOwners(owners, fmt.Sprintf(`
namespaces = ["%d"]
closed_connections = "on"
`, load.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	c := &connectsPlugin{load: load, gatherOnce: gatherOnce, owners: owners}
	return c.measure, nil
}

func (c *connectsPlugin) measure() (sample, error) {
	idle, err := pluginGather(c.gatherIdle, c.owners, defaults)()
	if err != nil {
		return idle, err
	}
	programs, err := attachedPrograms()
	if err != nil {
		return idle, err
	}
	defer programs.close()
	switch isRecorded := c.owners == ownersBPF; {
	case isRecorded && len(programs) == 0:
		return idle, unavailable(errors.New("the plugin attached no BPF program; its warning has the cause"))
	case !isRecorded && len(programs) > 0:
		return idle, fmt.Errorf("the plugin attached %d BPF programs, want none", len(programs))
	}
	var s sample
	cost, err := programs.measure(func() (err error) {
		s, err = pluginGather(c.gatherConnects, c.owners, defaults)()
		return err
	})
	if err != nil {
		return s, err
	}
	s.CPU -= idle.CPU
	s.Sockets = c.closed.last
	if len(programs) > 0 {
		s.CPU += cost.Time
		s.BPF = &cost
		if cost.Runs < connects {
			err = fmt.Errorf("the BPF programs ran %d times, want at least %d", cost.Runs, connects)
		}
	}
	return s, err
}

// gatherIdle gathers without connects since the last gather.
func (c *connectsPlugin) gatherIdle() (*tally, error) {
	acc, err := c.gatherOnce()
	return acc, errors.Join(err, c.closed.add(acc, 0))
}

func (c *connectsPlugin) gatherConnects() (*tally, error) {
	if err := runChurn(c.load, loadRequest{Do: doChurn, N: connects, HalfRefused: true}); err != nil {
		return &tally{}, err
	}
	acc, err := c.gatherOnce()
	return acc, errors.Join(err, c.closed.add(acc, closedByConnects))
}
