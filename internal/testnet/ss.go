package testnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A Row is a socket in the output of ss.
type Row struct {
	// Netid is tcp, udp, raw, u_str, u_dgr, u_seq, …; it is empty if the arguments select one kind of socket, for which ss omits
	// the column.
	Netid string
	// State is named as in [Socket], and empty if the arguments select one state.
	State string
	// RecvQ and SendQ are as in [Socket].
	RecvQ, SendQ uint32
	// Local and Remote are not valid for other than Internet sockets.
	Local, Remote netip.AddrPort
	// Interface is the interface that the socket is bound to.
	Interface string
	// Path is the address of a Unix socket, and Peer the inode of the one it is connected to.
	Path string
	Peer uint64
	// Inode is 0 also for raw sockets if the kernel has no raw_diag.
	Inode  uint64
	UID    uint32
	Cookie uint64
	// Cgroup is the path in the unified hierarchy.
	Cgroup string
	// Drops requires -m.
	Drops uint32
	// Processes requires -p.
	Processes []RowProcess
	// Line is the row as printed.
	Line string
}

// A RowProcess is a process that holds the socket of a [Row].
type RowProcess struct {
	Name string
	PID  int
	FD   int
}

// SS runs ss with -H -O -n -a -e and args in the network namespace of this process. Args are, for example, -t (only TCP), -l
// (only listeners), -p (with processes) or -m (with memory).
func SS(tb testing.TB, args ...string) []Row {
	tb.Helper()
	return ss(tb, []string{"ss"}, args)
}

// SSIn is SS in the network namespace of a file such as /proc/<pid>/ns/net.
func SSIn(tb testing.TB, file string, args ...string) []Row {
	tb.Helper()
	return ss(tb, []string{"nsenter", "--net=" + file, "ss"}, args)
}

func ss(tb testing.TB, command, args []string) []Row {
	tb.Helper()
	Require(tb, command[0], "ss")
	// With -p and a hundred thousand sockets, ss takes more than ten seconds.
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	args = slices.Concat(command[1:], []string{"-H", "-O", "-n", "-a", "-e"}, args)
	cmd := exec.CommandContext(ctx, command[0], args...)
	// Ignore stderr: ss warns of each protocol that the kernel has no sock_diag for.
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		tb.Fatalf("%v: %v: %s", cmd, err, exit.Stderr)
	}
	if err != nil {
		tb.Fatalf("%v: %v", cmd, err)
	}
	rows, err := parseSS(string(out))
	if err != nil {
		tb.Fatalf("%v: %v", cmd, err)
	}
	return rows
}

// ssStates maps the state names of ss to those of the kernel.
var ssStates = map[string]string{
	"": "", "ESTAB": "ESTABLISHED", "SYN-SENT": "SYN_SENT", "SYN-RECV": "SYN_RECV", "FIN-WAIT-1": "FIN_WAIT1",
	"FIN-WAIT-2": "FIN_WAIT2", "TIME-WAIT": "TIME_WAIT", "UNCONN": "CLOSE", "CLOSE-WAIT": "CLOSE_WAIT",
	"LAST-ACK": "LAST_ACK", "LISTEN": "LISTEN", "CLOSING": "CLOSING",
}

var (
	ssStart     = regexp.MustCompile(`(?s)^(?:([a-z?][a-z0-9_?]*)\s+)?(?:([A-Z][A-Z0-9-]*)\s+)?(\d+)\s+(\d+)\s+(.*)$`)
	ssProcesses = regexp.MustCompile(`(?s)users:\(\(.*?,fd=\d+\)\)`)
	ssProcess   = regexp.MustCompile(`(?s)\("(.*?)",pid=(\d+),fd=(\d+)\)`)
	ssInode     = regexp.MustCompile(`\sino:(\d+)`)
	ssUID       = regexp.MustCompile(`\suid:(\d+)`)
	ssCookie    = regexp.MustCompile(`\ssk:([0-9a-f]+)`)
	ssCgroup    = regexp.MustCompile(`\scgroup:(\S+)`)
	ssDrops     = regexp.MustCompile(`\sskmem:\([^)]*,d(\d+)\)`)
)

// parseSS parses what ss -H -O -n -e prints.
func parseSS(text string) ([]Row, error) {
	var lines []string
	for line := range strings.Lines(text) {
		// The name of a process may contain a newline.
		if len(lines) > 0 && !ssStart.MatchString(line) {
			lines[len(lines)-1] += line
		} else {
			lines = append(lines, line)
		}
	}
	var rows []Row
	for _, line := range lines {
		row, err := parseRow(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func parseRow(line string) (Row, error) {
	columns := ssStart.FindStringSubmatch(line)
	if columns == nil {
		return Row{}, errors.New("not a line of ss")
	}
	state, ok := ssStates[columns[2]]
	if !ok {
		return Row{}, fmt.Errorf("unknown state %q", columns[2])
	}
	row := Row{Netid: columns[1], State: state, Line: line}
	var p numbers
	row.RecvQ, row.SendQ = uint32(p.parse(columns[3], 10)), uint32(p.parse(columns[4], 10))

	rest := columns[5]
	users := ssProcesses.FindString(rest)
	for _, m := range ssProcess.FindAllStringSubmatch(strings.TrimPrefix(users, "users:("), -1) {
		row.Processes = append(row.Processes, RowProcess{m[1], int(p.parse(m[2], 10)), int(p.parse(m[3], 10))})
	}
	rest = strings.Replace(rest, users, "", 1)
	row.Inode = p.find(ssInode, rest, 10)
	row.UID = uint32(p.find(ssUID, rest, 10))
	row.Cookie = p.find(ssCookie, rest, 16)
	row.Drops = uint32(p.find(ssDrops, rest, 10))
	if m := ssCgroup.FindStringSubmatch(rest); m != nil {
		row.Cgroup = m[1]
	}
	return row, errors.Join(p.err, row.parseAddresses(strings.Fields(rest)))
}

// parseAddresses sets the addresses, or the path and the peer of a Unix socket.
func (r *Row) parseAddresses(columns []string) error {
	var err error
	switch {
	case strings.HasPrefix(r.Netid, "u_"):
		if len(columns) < 4 {
			return errors.New("no addresses")
		}
		var p numbers
		if columns[0] != "*" {
			r.Path = columns[0]
		}
		// What is called ino here is the inode of the path.
		r.Inode, r.Peer = p.parse(columns[1], 10), p.parse(columns[3], 10)
		return p.err
	case r.Netid == "", r.Netid == "tcp", r.Netid == "mptcp", r.Netid == "udp", r.Netid == "raw", r.Netid == "icmp6":
		if len(columns) < 2 {
			return errors.New("no addresses")
		}
		if r.Local, r.Interface, err = parseSSAddress(columns[0]); err != nil {
			return err
		}
		r.Remote, _, err = parseSSAddress(columns[1])
	}
	return err
}

// parseSSAddress parses an address such as 127.0.0.1:80, 0.0.0.0%eth0:68, [::1]:80, [fe80::1]%eth0:546 or *:*. The host * is the
// wildcard of a dual-stack socket.
func parseSSAddress(text string) (addr netip.AddrPort, iface string, err error) {
	colon := strings.LastIndexByte(text, ':')
	if colon < 0 {
		return addr, "", fmt.Errorf("no port in address %q", text)
	}
	host, iface, _ := strings.Cut(text[:colon], "%")
	ip := netip.IPv6Unspecified()
	if host != "*" {
		if ip, err = netip.ParseAddr(strings.Trim(host, "[]")); err != nil {
			return addr, "", err
		}
	}
	var port uint64
	if text[colon+1:] != "*" {
		if port, err = strconv.ParseUint(text[colon+1:], 10, 16); err != nil {
			return addr, "", fmt.Errorf("port of address %q: %w", text, err)
		}
	}
	return netip.AddrPortFrom(ip, uint16(port)), iface, nil
}

// numbers parses numbers and keeps the first error.
type numbers struct {
	err error
}

func (p *numbers) parse(text string, base int) uint64 {
	n, err := strconv.ParseUint(text, base, 64)
	if p.err == nil {
		p.err = err
	}
	return n
}

// find parses the group of pattern, or returns 0 if the pattern does not match.
func (p *numbers) find(pattern *regexp.Regexp, text string, base int) uint64 {
	m := pattern.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	return p.parse(m[1], base)
}
