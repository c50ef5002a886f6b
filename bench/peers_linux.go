package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "github.com/influxdata/telegraf/plugins/inputs/netstat"    // for startPlugin
	_ "github.com/influxdata/telegraf/plugins/inputs/procstat"   // for startPlugin
	_ "github.com/influxdata/telegraf/plugins/inputs/socketstat" // for startPlugin
	"github.com/prometheus/procfs"
	gopsutil "github.com/shirou/gopsutil/v4/net"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/netstat"
)

// The peers are other programs and libraries that read sockets.
var peers = []subject{
	{
		name: rowNetstat, group: groupPeers, floors: []string{floorRead, floorWalk}, exact: true,
		start: func(task) (gather, error) { return startPeerPlugin("netstat", "") },
	},
	{
		name: "inputs.socketstat", group: groupPeers, floors: []string{floorInfoDump}, exact: true,
		note: "peak RSS excludes ss", start: startSocketstat,
	},
	{
		name: rowProcstat, group: groupPeers, floors: []string{floorInfoDump}, start: startProcstat,
	},
	{
		name: `gopsutil net.Connections("all")`, group: groupPeers, floors: []string{floorRead, floorWalk}, exact: true,
		start: func(task) (gather, error) { return measureInProcess(gopsutilConnections), nil },
	},
	{
		name: "prometheus/procfs NetTCP, NetTCP6", group: groupPeers, floors: []string{floorRead}, exact: true,
		start: func(task) (gather, error) { return measureInProcess(procfsConnections), nil },
	},
	{
		name: "vishvananda/netlink SocketDiagTCPInfo", group: groupPeers, floors: []string{floorInfoDump}, exact: true,
		start: func(task) (gather, error) { return measureInProcess(netlinkConnections), nil },
	},
	{
		name: "ss -tan", group: groupPeers, floors: []string{floorDump}, exact: true,
		start: func(task) (gather, error) { return startSS("-tan") },
	},
	{
		name: "ss -tanp", group: groupPeers, floors: []string{floorDump, floorWalk}, exact: true,
		start: func(task) (gather, error) { return startSS("-tanp") },
	},
}

func startPeerPlugin(name, options string) (gather, error) {
	gatherOnce, err := startPlugin(name, options)
	if err != nil {
		return nil, err
	}
	return measureInProcess(func() (int, error) {
		acc, err := gatherOnce()
		return acc.established, err
	}), nil
}

// startSocketstat raises the timeout of ss, which is a second by default.
func startSocketstat(task) (gather, error) {
	if err := requireSS(); err != nil {
		return nil, err
	}
	return startPeerPlugin("socketstat", `
		protocols = ["tcp"]
		timeout = "10m"`)
}

// startProcstat monitors the first processes of the load.
func startProcstat(t task) (gather, error) {
	var files []string
	for _, pid := range t.PIDs[:procstatProcesses] {
		file, err := pidFile(pid)
		if err != nil {
			return nil, err
		}
		files = append(files, strconv.Quote(file))
	}
	return startPeerPlugin("procstat", fmt.Sprintf(`
		properties = ["sockets"]
		[[filter]]
		  name = "load"
		  pid_files = [%s]`, strings.Join(files, ", ")))
}

// pidFile creates a pid file that exists until this process exits, and returns its path.
func pidFile(pid int) (string, error) {
	fd, err := unix.MemfdCreate("pid", unix.MFD_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("creating a pid file of %d: %w", pid, err)
	}
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	return path, os.WriteFile(path, []byte(strconv.Itoa(pid)), 0)
}

func gopsutilConnections() (established int, err error) {
	connections, err := gopsutil.Connections("all")
	for _, c := range connections {
		if c.Type == unix.SOCK_STREAM && c.Status == "ESTABLISHED" {
			established++
		}
	}
	return established, err
}

func procfsConnections() (established int, err error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	for _, read := range []func() (procfs.NetTCP, error){proc.NetTCP, proc.NetTCP6} { //nolint:staticcheck // deprecated, and what is measured
		lines, err := read()
		if err != nil {
			return 0, err
		}
		for _, line := range lines {
			if line.St == uint64(netstat.TCPEstablished) {
				established++
			}
		}
	}
	return established, nil
}

func netlinkConnections() (established int, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCPInfo(family)
		if err != nil {
			return 0, err
		}
		for _, s := range sockets {
			if s.InetDiagMsg.State == uint8(netstat.TCPEstablished) {
				established++
			}
		}
	}
	return established, nil
}

func requireSS() error {
	_, err := exec.LookPath("ss")
	if errors.Is(err, exec.ErrNotFound) {
		return unavailable(err)
	}
	return err
}

// startSS runs ss for each gather. It reads only the first column of the output.
func startSS(flags string) (gather, error) {
	if err := requireSS(); err != nil {
		return nil, err
	}
	return func() (s sample, err error) {
		begin := time.Now()
		cmd := exec.Command("ss", flags) //nolint:noctx // a closed pipe ends it
		out, err := cmd.StdoutPipe()
		if err != nil {
			return s, err
		}
		if err := cmd.Start(); err != nil {
			return s, err
		}
		s.Sockets, s.PeakRSS, err = readSS(out, strconv.Itoa(cmd.Process.Pid))
		if err := errors.Join(err, cmd.Wait()); err != nil {
			return s, fmt.Errorf("ss %s: %w", flags, err)
		}
		s.Wall = time.Since(begin)
		usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		s.CPU = time.Duration(syscall.TimevalToNsec(usage.Utime) + syscall.TimevalToNsec(usage.Stime))
		return s, nil
	}, nil
}

// readSS counts the established connections, and reads the peak RSS of ss meanwhile. ru_maxrss of the exited process is of no
// use: a child inherits the value of its parent, which is larger here (setmax_mm_hiwater_rss, fs/exec.c).
func readSS(out io.Reader, pid string) (established int, rss int64, err error) {
	lines := bufio.NewScanner(out)
	for rows := 0; lines.Scan(); rows++ {
		if line := lines.Bytes(); len(line) > 5 && string(line[:5]) == "ESTAB" {
			established++
		}
		if rows%1000 == 0 {
			if now, err := readPeakRSS(pid); err == nil {
				rss = now
			}
		}
	}
	return established, rss, lines.Err()
}
