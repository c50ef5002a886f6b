package netstat_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
	"github.com/procnetstat/procnetstat/netstat"
)

// useExampleProc makes the library read a proc file system with known content until restore is called.
func useExampleProc() (restore func()) {
	dir, err := os.MkdirTemp("", "example")
	if err == nil {
		err = proctree.Copy(filepath.Join(dir, "proc"), smallTree)
	}
	if err != nil {
		panic(err)
	}
	old := netstat.ProcRoot
	netstat.ProcRoot = filepath.Join(dir, "proc")
	return func() {
		netstat.ProcRoot = old
		_ = os.RemoveAll(dir)
	}
}

// List the listening processes.
func ExampleProtocol_Connections() {
	defer useExampleProc()() // for a fixed output; leave it out to read /proc

	for _, protocol := range []*netstat.Protocol{netstat.TCP, netstat.TCP6} {
		connections, err := protocol.Connections()
		if err != nil {
			// There may be connections nonetheless: those of the rows that are not broken.
			fmt.Fprintln(os.Stderr, err)
		}
		for _, c := range connections {
			if c.State == netstat.TCPListen {
				fmt.Printf("%s port %d: process %d, %q\n", protocol.Name, c.Port, c.Pid, c.Exe)
			}
		}
	}
	// Output:
	// tcp port 5432: process 0, ""
	// tcp port 80: process 1001, "/usr/sbin/nginx"
	// tcp6 port 22: process 1, "/usr/lib/systemd/systemd"
	// tcp6 port 8080: process 1003, "/usr/lib/jvm/java-21/bin/java"
}

// Read the table of another network namespace through a process in it.
func ExampleProtocol() {
	defer useExampleProc()() // for a fixed output; leave it out to read /proc

	container := &netstat.Protocol{Name: "tcp", RelPath: "1003/net/tcp"}
	connections, err := container.Connections()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	for _, c := range connections {
		fmt.Println(c.State, c.IP, c.Port, c.RemoteIP, c.RemotePort, c.Pid)
	}
	// Output:
	// LISTEN 0.0.0.0 8443 0.0.0.0 0 1003
	// ESTABLISHED 172.17.0.2 8443 172.17.0.1 50008 1003
}

func ExampleConnection_User() {
	c := &netstat.Connection{UserID: "2123456789"}
	u, err := c.User()
	if err != nil {
		fmt.Println("user", c.UserID, "has no name:", err)
		return
	}
	fmt.Println(u.Username)
	// Output:
	// user 2123456789 has no name: user: unknown userid 2123456789
}
