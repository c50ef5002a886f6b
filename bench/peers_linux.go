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

	_ "github.com/influxdata/telegraf/plugins/inputs/netstat"    // startPlugin finds it by its name
	_ "github.com/influxdata/telegraf/plugins/inputs/procstat"   // the same
	_ "github.com/influxdata/telegraf/plugins/inputs/socketstat" // the same
	"github.com/prometheus/procfs"
	gopsutil "github.com/shirou/gopsutil/v4/net"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/netstat"
)

// The peers are what people use otherwise.
var peers = []subject{
	{
		name: rowNetstat, group: groupPeers, floors: []string{floorRead, floorWalk}, exact: true,
		start: func(task) (gather, error) { return peerPlugin("netstat", "") },
	},
	{
		name: "inputs.socketstat", group: groupPeers, floors: []string{floorInfoDump}, exact: true,
		note: "without the memory of ss", start: startSocketstat,
	},
	{
		name: rowProcstat, group: groupPeers, floors: []string{floorInfoDump}, start: startProcstat,
	},
	{
		name: `gopsutil net.Connections("all")`, group: groupPeers, floors: []string{floorRead, floorWalk}, exact: true,
		start: func(task) (gather, error) { return inProcess(connectionsOfGopsutil), nil },
	},
	{
		name: "prometheus/procfs NetTCP, NetTCP6", group: groupPeers, floors: []string{floorRead}, exact: true,
		start: func(task) (gather, error) { return inProcess(connectionsOfProcfs), nil },
	},
	{
		name: "vishvananda/netlink SocketDiagTCPInfo", group: groupPeers, floors: []string{floorInfoDump}, exact: true,
		start: func(task) (gather, error) { return inProcess(connectionsOfNetlink), nil },
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

func peerPlugin(name, options string) (gather, error) {
	once, err := startPlugin(name, options)
	if err != nil {
		return nil, err
	}
	return inProcess(func() (int, error) {
		seen, err := once()
		return seen.established, err
	}), nil
}

// startSocketstat gives ss more time than it has by default, which is a second.
func startSocketstat(task) (gather, error) {
	if err := needSS(); err != nil {
		return nil, err
	}
	return peerPlugin("socketstat", `
		protocols = ["tcp"]
		timeout = "10m"`)
}

// startProcstat asks for the first processes of the load.
func startProcstat(t task) (gather, error) {
	var files []string
	for _, pid := range t.PIDs[:procstatProcesses] {
		file, err := pidFile(pid)
		if err != nil {
			return nil, err
		}
		files = append(files, strconv.Quote(file))
	}
	return peerPlugin("procstat", fmt.Sprintf(`
		properties = ["sockets"]
		[[filter]]
		  name = "load"
		  pid_files = [%s]`, strings.Join(files, ", ")))
}

// pidFile makes a file that ends with this process, and returns its path.
func pidFile(pid int) (string, error) {
	fd, err := unix.MemfdCreate("pid", unix.MFD_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("making a file for process id %d: %w", pid, err)
	}
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	return path, os.WriteFile(path, []byte(strconv.Itoa(pid)), 0)
}

func connectionsOfGopsutil() (established int, err error) {
	connections, err := gopsutil.Connections("all")
	for _, c := range connections {
		if c.Type == unix.SOCK_STREAM && c.Status == "ESTABLISHED" {
			established++
		}
	}
	return established, err
}

func connectionsOfProcfs() (established int, err error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	for _, read := range []func() (procfs.NetTCP, error){proc.NetTCP, proc.NetTCP6} {
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

func connectionsOfNetlink() (established int, err error) {
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

func needSS() error {
	_, err := exec.LookPath("ss")
	if errors.Is(err, exec.ErrNotFound) {
		return unavailable(err)
	}
	return err
}

// startSS runs ss for each gather, and looks at nothing of what it prints but the first column.
func startSS(flags string) (gather, error) {
	if err := needSS(); err != nil {
		return nil, err
	}
	return func() (s sample, err error) {
		begin := time.Now()
		cmd := exec.Command("ss", flags) //nolint:noctx // it ends when nobody reads what it prints
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

// readSS counts the established connections, and looks at the memory of ss as it prints them. The kernel's own figure for
// a process that has ended, ru_maxrss, is no less than that of the one that started it, which here is larger.
func readSS(out io.Reader, pid string) (established int, rss int64, err error) {
	lines := bufio.NewScanner(out)
	for rows := 0; lines.Scan(); rows++ {
		if line := lines.Bytes(); len(line) > 5 && string(line[:5]) == "ESTAB" {
			established++
		}
		if rows%1000 == 0 {
			if now, err := peakRSSOf(pid); err == nil {
				rss = now
			}
		}
	}
	return established, rss, lines.Err()
}
