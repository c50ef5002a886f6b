package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// InfluxDB is not there when Telegraf starts, comes, goes, and comes back: it gets all that was gathered meanwhile.
func TestInfluxDBComesLate(t *testing.T) {
	t.Run("plugin", func(t *testing.T) {
		setUp(t)
		program := customTelegraf(t)
		testnet.Isolate(t, func() { requireAllStored(t, program, pluginConfig("netlink")) })
	})
	t.Run("execd", func(t *testing.T) {
		setUp(t)
		program, procnetstat := stockTelegraf(t), execdProgram(t)
		testnet.Isolate(t, func() {
			requireAllStored(t, program, execdConfig(t, procnetstat, "STDIN", pluginConfig("netlink")))
		})
	})
}

func requireAllStored(t *testing.T, program, inputs string) {
	t.Helper()
	db := newInfluxDB(t)
	tg := startTelegraf(t, program, "1s", inputs)
	startLoad(t)
	gathers := func(n int) (last int64) {
		t.Helper()
		last = time.Now().UnixNano()
		for range n {
			last = tg.gatherAfter(last, lastMeasurement)
		}
		return last
	}
	stored := func(at int64) {
		t.Helper()
		db.wait(at, tg.seen[at], tg.check)
	}

	gathers(3)
	db.start()
	stored(gathers(1))
	db.stop()
	gathers(3)
	db.start()
	stored(gathers(1))

	tg.stop()
	tg.read()
	requireAll(t, db.since(0), tg.seen)
}

// The program of inputs.execd is killed: Telegraf starts it again after restart_delay, and metrics go on.
func TestKilledProgramIsRestarted(t *testing.T) {
	for _, signal := range []string{"none", "STDIN", "SIGUSR1"} {
		t.Run(signal, func(t *testing.T) {
			setUp(t)
			program, procnetstat := stockTelegraf(t), execdProgram(t)
			testnet.Isolate(t, func() {
				inputs := execdConfig(t, procnetstat, signal, pluginConfig("netlink"))
				p := startPipeline(t, program, inputs, lastMeasurement)
				startLoad(t)
				requireNumbers(t, "netlink", p.measure())

				killed, at := p.killExecd(), time.Now()
				first := time.Unix(0, p.telegraf.gatherAfter(at.UnixNano(), lastMeasurement))
				if pause := first.Sub(at); pause < restartDelay {
					t.Errorf("gathered %v after the program was killed; it was not to be started before %v", pause, restartDelay)
				}
				if again := p.telegraf.child("procnetstat"); again == 0 || again == killed {
					t.Errorf("the program that was killed had the process id %d; now it is %d", killed, again)
				}
				m := p.measure()
				requireNumbers(t, "netlink", m)
			})
		})
	}
}

// killExecd kills the program of inputs.execd, and returns what process id it had.
func (p *pipeline) killExecd() int {
	p.t.Helper()
	pid := p.telegraf.child("procnetstat")
	if pid == 0 {
		p.t.Fatal("no program of inputs.execd")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	return pid
}
