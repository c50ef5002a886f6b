package testnet

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A churn starts and ends processes and connections, not faster than configured, and leaves only the accepted sockets that are in
// TIME_WAIT.
func TestChurn(t *testing.T) {
	Isolate(t, func() {
		p := Start(t, Process{Name: "churn"})
		want := Churn{Processes: 100, Connections: 1000, TimeWaits: 100, Lifetime: 50 * time.Millisecond}
		p.Churn(want)
		var done ChurnStats
		for end := deadline(); done.Processes < 50 || done.Connections < 500; done = p.ChurnStats() {
			if time.Now().After(end) {
				t.Fatalf("the churn is too slow: %+v", done)
			}
			time.Sleep(10 * time.Millisecond)
		}
		seconds := done.For.Seconds() + 1
		if float64(done.Processes) > seconds*float64(want.Processes) ||
			float64(done.Connections) > seconds*float64(want.Connections+want.Processes) {
			t.Errorf("the churn is too fast: %+v", done)
		}
		if seen := SocketStates(t); len(seen) < 10 {
			t.Errorf("got %d sockets, want at least 10", len(seen))
		}
		ports := map[uint16]bool{}
		for _, row := range SS(t, "-t", "-l", "-p") {
			for _, of := range row.Processes {
				if of.PID == p.PID {
					ports[row.Local.Port()] = true
				}
			}
		}
		p.StopChurn()
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.PID))
		if err != nil || len(threads) == 0 {
			t.Fatalf("no threads of process %d: %v", p.PID, err)
		}
		for _, file := range threads {
			if children, err := os.ReadFile(file); err != nil || len(children) > 0 {
				t.Errorf("processes left: %s (%v)", children, err)
			}
		}
		left := SS(t, "-t", "-u")
		if len(left) == 0 {
			t.Error("no socket is in TIME_WAIT")
		}
		for _, row := range left {
			if row.State != "TIME_WAIT" || !ports[row.Local.Port()] {
				t.Errorf("socket left: %s", row.Line)
			}
		}
		p.Churn(want)
		p.StopChurn()
	})
}

// SocketStates returns the same sockets as ss.
func TestSocketStates(t *testing.T) {
	Isolate(t, func() {
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			States(t, network)
		}
		UDP(t)
		want := map[SocketState]int{}
		for _, row := range SS(t, "-t", "-u") {
			want[SocketState{row.Netid, row.State, row.Cookie}]++
		}
		seen := SocketStates(t)
		if len(seen) < 20 {
			t.Errorf("got %d sockets, want at least 20", len(seen))
		}
		for s, n := range want {
			if seen[s] != n {
				t.Errorf("got %d of %+v, ss shows %d", seen[s], s, n)
			}
			delete(seen, s)
		}
		if len(seen) > 0 {
			t.Errorf("ss does not show %+v", seen)
		}
	})
}
