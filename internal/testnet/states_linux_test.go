package testnet

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"
)

// The sockets do not change for one second, or for the duration in TESTNET_SOAK.
func TestStates(t *testing.T) {
	Isolate(t, func() {
		soak, err := time.ParseDuration(os.Getenv("TESTNET_SOAK"))
		if err != nil {
			soak = time.Second
		}
		var loads []*Load
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			load := States(t, network)
			checkStates(t, load)
			loads = append(loads, load)
		}
		for end := time.Now().Add(soak); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			for _, load := range loads {
				load.Check()
			}
		}
		checkRows(t, SS(t, "-A", "tcp,udp"), loads...)
	})
}

func checkStates(t *testing.T, load *Load) {
	t.Helper()
	want := map[string]int{
		"ESTABLISHED": 14, "SYN_SENT": 3, "SYN_RECV": 2, "FIN_WAIT1": 4, "FIN_WAIT2": 4, "TIME_WAIT": 2, "CLOSE_WAIT": 2,
		"LAST_ACK": 2, "LISTEN": 4, "CLOSING": 2,
	}
	if got := load.Count(); !maps.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	for _, state := range []string{"ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "LAST_ACK", "CLOSING"} {
		isUnheld := func(s Socket) bool { return s.Inode == 0 }
		if sockets := load.In(state); !slices.ContainsFunc(sockets, isUnheld) || sockets[0].Inode == 0 {
			t.Errorf("want sockets in %s with and without an inode: %+v", state, sockets)
		}
	}
	established := load.In("ESTABLISHED")
	if !slices.ContainsFunc(established, func(s Socket) bool { return s.RecvQ == UnreadBytes }) ||
		!slices.ContainsFunc(established, func(s Socket) bool { return s.SendQ == UnackedBytes }) {
		t.Errorf("no socket with unread, or none with unacknowledged bytes: %+v", established)
	}
}

// checkRows checks that ss shows the sockets of the loads and no others.
func checkRows(t *testing.T, rows []Row, loads ...*Load) {
	t.Helper()
	count := make(map[string]int)
	for _, load := range loads {
		for _, s := range load.Sockets {
			if s.Inode == 0 {
				s.UID = 0
			}
			count[fmt.Sprint(s.Protocol[:3], s.State, s.Local, s.Remote, s.RecvQ, s.SendQ, s.Inode, s.UID)]++
		}
	}
	cookies := make(map[uint64]uint64)
	for _, r := range rows {
		key := fmt.Sprint(r.Netid, r.State, r.Local, r.Remote, r.RecvQ, r.SendQ, r.Inode, r.UID)
		if count[key]--; count[key] < 0 {
			t.Errorf("ss shows %s, which is not in the loads", key)
		}
		cookies[r.Inode] = r.Cookie
	}
	for key, n := range count {
		if n > 0 {
			t.Errorf("ss does not show %s", key)
		}
	}
	for _, load := range loads {
		for _, s := range load.Sockets {
			if s.Inode != 0 && s.Cookie != cookies[s.Inode] {
				t.Errorf("socket %d has the cookie %d, ss shows %d", s.Inode, s.Cookie, cookies[s.Inode])
			}
		}
	}
}

func TestOverflow(t *testing.T) {
	Isolate(t, func() {
		var loads []*Load
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			load := Overflow(t, network)
			want := map[string]int{"LISTEN": 1, "ESTABLISHED": 6, "SYN_SENT": 9}
			if got := load.Count(); !maps.Equal(got, want) {
				t.Errorf("%s: states %v, want %v", network, got, want)
			}
			row := listenerRow(t, load)
			if row.RecvQ != 3 || row.SendQ != 2 || row.Drops < 9 {
				t.Errorf("%s: ss shows %+v", network, row)
			}
			loads = append(loads, load)
		}
		for _, load := range loads {
			for end := deadline(); listenerRow(t, load).Drops < 18; time.Sleep(100 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the drops do not grow: %+v", listenerRow(t, load))
				}
			}
			load.Check()
		}
	})
}

// listenerRow returns the row of the first socket of a load.
func listenerRow(t *testing.T, load *Load) Row {
	t.Helper()
	for _, row := range SS(t, "-ltm") {
		if row.Inode == load.Sockets[0].Inode {
			return row
		}
	}
	t.Fatalf("ss does not show %+v", load.Sockets[0])
	return Row{}
}

// Load.missing notices every wrong value.
func TestLoadCheck(t *testing.T) {
	Isolate(t, func() {
		load := States(t, "tcp4")
		for name, change := range map[string]func(*Socket){
			"state":  func(s *Socket) { s.State = "CLOSING" },
			"local":  func(s *Socket) { s.Local = s.Remote },
			"remote": func(s *Socket) { s.Remote = s.Local },
			"inode":  func(s *Socket) { s.Inode++ },
			"RecvQ":  func(s *Socket) { s.RecvQ++ },
			"SendQ":  func(s *Socket) { s.SendQ++ },
		} {
			s := &load.Sockets[len(load.Sockets)/2]
			was := *s
			change(s)
			if load.missing() == "" {
				t.Errorf("a wrong %s is not noticed", name)
			}
			*s = was
		}
		load.Check()
	})
}
