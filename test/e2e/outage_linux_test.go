package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// InfluxDB starts after Telegraf, stops and starts again: everything that was gathered meanwhile reaches it.
func TestInfluxDBOutage(t *testing.T) {
	runPluginAndExecd(t, pluginConfig("netlink"), func(t *testing.T, program, inputs string) {
		db := newInfluxDB(t)
		tg := startTelegraf(t, program, "1s", inputs)
		startLoad(t)
		waitForGathers := func(n int) (last int64) {
			t.Helper()
			last = time.Now().UnixNano()
			for range n {
				last = tg.gatherAfter(last, lastMeasurement)
			}
			return last
		}
		requireStored := func(at int64) {
			t.Helper()
			db.wait(at, tg.seen[at], tg.check)
		}

		waitForGathers(3)
		db.start()
		requireStored(waitForGathers(1))
		db.stop()
		waitForGathers(3)
		db.start()
		requireStored(waitForGathers(1))

		tg.stop()
		tg.read()
		requireMetrics(t, db.since(0), tg.seen)
	})
}

// When the program of inputs.execd is killed, Telegraf starts it again after restart_delay, and metrics continue.
func TestKilledProgramIsRestarted(t *testing.T) {
	for _, signal := range []string{"none", "STDIN", "SIGUSR1"} {
		t.Run(signal, func(t *testing.T) {
			setUp(t)
			program, procnetstat := stockTelegraf(t), execdProgram(t)
			testnet.Isolate(t, func() {
				inputs := execdConfig(t, procnetstat, signal, pluginConfig("netlink"))
				p := startPipeline(t, program, inputs, lastMeasurement)
				p.telegraf.pauseFor(func() { startLoad(t) }) // see requireFollowsLoad
				requireMatchesSS(t, "netlink", p.measure())

				killed, at := p.killExecd(), time.Now()
				first := time.Unix(0, p.telegraf.gatherAfter(at.UnixNano(), lastMeasurement))
				if pause := first.Sub(at); pause < restartDelay {
					t.Errorf("gathered %v after the program was killed, before restart_delay (%v)", pause, restartDelay)
				}
				if again := p.telegraf.child("procnetstat"); again == 0 || again == killed {
					t.Errorf("process ID %d was killed; the process ID now is %d", killed, again)
				}
				m := p.measure()
				requireMatchesSS(t, "netlink", m)
			})
		})
	}
}

// killExecd kills the program of inputs.execd, and returns the process ID that it had.
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
