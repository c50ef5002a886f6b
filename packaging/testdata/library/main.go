// Command library counts sockets with the library alone, by both of its APIs.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/procnetstat/procnetstat/netstat"
)

func main() {
	connections, err := netstat.TCP.Connections()
	if err != nil {
		log.Fatal(err)
	}

	scanner, err := netstat.NewScanner(netstat.ScannerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer scanner.Close()
	sockets := 0
	for _, err := range scanner.Sockets(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		sockets++
	}
	fmt.Println(len(connections), "connections by the v1 API,", sockets, "sockets by the scanner")
}
