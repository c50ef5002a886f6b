package cgroup_test

import (
	"context"
	"fmt"
	"log"

	"github.com/procnetstat/procnetstat/netstat"
	"github.com/procnetstat/procnetstat/netstat/cgroup"
)

// Print the systemd unit of every socket of this network namespace.
func Example() {
	tree, err := cgroup.NewTree("")
	if err != nil {
		log.Fatal(err)
	}
	scanner, err := netstat.NewScanner(netstat.ScannerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer scanner.Close()
	for socket, err := range scanner.Sockets(context.Background()) {
		if err != nil {
			log.Print(err) // a part that failed; the others follow
			continue
		}
		if !socket.Has(netstat.FieldCgroupID) {
			continue
		}
		if path, ok := tree.Path(socket.CgroupID); ok {
			fmt.Println(socket.Local, cgroup.WorkloadOf(path).SystemdUnit)
		}
	}
}

func ExampleWorkloadOf() {
	workload := cgroup.WorkloadOf("/kubepods.slice/kubepods-pod6f3e0a5c_1b2d_4c3e_8f9a_0b1c2d3e4f5a.slice/" +
		"cri-containerd-8d3f0c5b9a71e264d3c0b5a49788f6e1d2c3b4a5968778695a4b3c2d1e0f1a2b.scope")
	fmt.Println(workload.PodUID)
	fmt.Println(workload.ContainerID)
	fmt.Println(cgroup.WorkloadOf("/system.slice/nginx.service").SystemdUnit)
	// Output:
	// 6f3e0a5c-1b2d-4c3e-8f9a-0b1c2d3e4f5a
	// 8d3f0c5b9a71e264d3c0b5a49788f6e1d2c3b4a5968778695a4b3c2d1e0f1a2b
	// nginx.service
}

func ExampleParseProcess() {
	// The content of /proc/<pid>/cgroup on a host where systemd has a v1 hierarchy, too.
	content := []byte("1:name=systemd:/system.slice/nginx.service\n0::/system.slice/nginx.service\n")
	path, err := cgroup.ParseProcess(content)
	fmt.Println(path, err)
	// Output: /system.slice/nginx.service <nil>
}
