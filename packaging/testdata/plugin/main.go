// Command plugin looks the plugin up in Telegraf's registry.
package main

import (
	"fmt"
	"log"

	"github.com/influxdata/telegraf/plugins/inputs"

	_ "github.com/procnetstat/procnetstat/plugins/inputs/procnetstat"
)

func main() {
	if _, ok := inputs.Inputs["procnetstat"]; !ok {
		log.Fatal("Telegraf has no inputs.procnetstat")
	}
	fmt.Println("Telegraf has inputs.procnetstat")
}
