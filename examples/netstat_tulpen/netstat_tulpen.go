// Command netstat_tulpen prints the same as netstat -tulpen of net-tools 2.10: listening TCP sockets and unconnected UDP
// sockets, with their users, inodes and processes.
//
// There are two differences. User ids above 2147483647 are not printed as negative numbers. Bytes of program names that are
// not printable ASCII are replaced by dots, as in later net-tools, so that a name cannot contain terminal control sequences.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/procnetstat/procnetstat/netstat"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	err := errors.Join(printSockets(out), out.Flush())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// printSockets prints all sockets that it can read. The error joins the errors of the tables that it cannot read.
func printSockets(w io.Writer) error {
	fmt.Fprintln(w, "Active Internet connections (only servers)")
	fmt.Fprintln(w, "Proto Recv-Q Send-Q Local Address           Foreign Address         State       User       Inode      PID/Program name    ")
	var failed []error
	for _, protocol := range []*netstat.Protocol{netstat.TCP, netstat.TCP6, netstat.UDP, netstat.UDP6} {
		connections, err := protocol.Connections()
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(protocol.Name, "6") {
			err = nil // kernel without IPv6
		}
		failed = append(failed, err)
		for _, c := range connections {
			if isServer(c) {
				printSocket(w, c)
			}
		}
	}
	return errors.Join(failed...)
}

func isServer(c *netstat.Connection) bool {
	if isTCP(c) {
		return c.State == netstat.TCPListen
	}
	return c.RemoteIP.IsUnspecified()
}

func isTCP(c *netstat.Connection) bool { return strings.HasPrefix(c.Protocol.Name, "tcp") }

func printSocket(w io.Writer, c *netstat.Connection) {
	state := ""
	if isTCP(c) {
		state = c.State.String()
	}
	fmt.Fprintf(w, "%-4s  %6d %6d %-23s %-23s %-11s %-10s %-10d %-20s\n", c.Protocol.Name, c.ReceiveQueue, c.TransmitQueue,
		address(c.IP, c.Port), address(c.RemoteIP, c.RemotePort), state, c.UserID, c.Inode, program(c))
}

// address formats an address. It truncates IPv6 addresses to the width of the column.
func address(ip net.IP, port int) string {
	const width = 22 // without the colon
	host, service := ip.String(), "*"
	if port != 0 {
		service = strconv.Itoa(port)
	}
	return host[:min(len(host), width-len(service))] + ":" + service
}

// program returns the process id and the base name of the first command-line argument, truncated.
func program(c *netstat.Connection) string {
	if c.Pid == 0 {
		return "-"
	}
	name := ""
	if len(c.Cmdline) > 0 {
		name = c.Cmdline[0]
	}
	if strings.HasPrefix(name, "/") {
		name = name[strings.LastIndexByte(name, '/')+1:]
	}
	const width = 19
	text := fmt.Appendf(nil, "%d/%s", c.Pid, name)
	text = text[:min(len(text), width)]
	for i, b := range text {
		if b < ' ' || b > '~' {
			text[i] = '.'
		}
	}
	return string(text)
}
