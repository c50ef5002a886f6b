// Command kafka is a Kafka broker for tests, which listens at 127.0.0.1 and keeps its topics in memory. It is a separate
// module, so that the products do not depend on its dependencies.
//
//	kafka <port> <topic> <partitions>
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	const argCount = 3
	if len(args) != argCount {
		return fmt.Errorf("got %d arguments, want <port> <topic> <partitions>", len(args))
	}
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("port: %w", err)
	}
	partitions, err := strconv.ParseInt(args[2], 10, 32)
	if err != nil {
		return fmt.Errorf("partitions: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	cluster, err := kfake.NewCluster(kfake.Ports(port), kfake.SeedTopics(int32(partitions), args[1]))
	if err != nil {
		return err
	}
	defer cluster.Close()
	<-stop
	return nil
}
