package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

const (
	kafkaEnv     = "E2E_KAFKA" // the path of the Kafka server of test/kafka
	kafkaAddress = "127.0.0.1:9092"
	kafkaTopic   = "telegraf"
)

// The configurations of the producer on each host, and of the consumer, which writes to InfluxDB.
const (
	kafkaOutput = `
[[outputs.kafka]]
  brokers = ["` + kafkaAddress + `"]
  topic = "` + kafkaTopic + `"
  version = "2.6.0"
  routing_tag = "host"
  compression_codec = %d
  data_format = "influx"
  flush_interval = "100ms"
`
	kafkaConsumer = `
[agent]
  skip_processors_after_aggregators = true
  omit_hostname = true
[[inputs.kafka_consumer]]
  brokers = ["` + kafkaAddress + `"]
  topics = ["` + kafkaTopic + `"]
  consumer_group = "influxdb"
  version = "2.6.0"
  offset = "oldest"
  data_format = "influx"
[[outputs.influxdb]]
  urls = ["http://` + influxAddress + `"]
  database = "` + database + `"
  flush_interval = "100ms"
`
)

// A Telegraf with the plugin writes to Kafka, and another one reads from it and writes to InfluxDB, which then has exactly the
// same values.
func TestKafka(t *testing.T) {
	for name, codec := range map[string]int{"uncompressed": 0, "zstd": 4} {
		t.Run(name, func(t *testing.T) {
			setUp(t)
			program, kafka := customTelegraf(t), builtOnce(t, kafkaEnv, buildKafka)
			testnet.Isolate(t, func() {
				_, port, _ := net.SplitHostPort(kafkaAddress)
				startServer(t, kafka, port, kafkaTopic, "3")
				waitFor(t, "Kafka", func() bool {
					conn, err := net.Dial("tcp", kafkaAddress)
					if err != nil {
						return false
					}
					return conn.Close() == nil
				})
				db := newInfluxDB(t)
				db.start()
				p := testnet.Start(t, testnet.Process{Name: serverName})
				p.Connect(p.Listen("tcp4", loopback, 1).Local, 1)
				// With onlyWhenAsked, this Telegraf never writes to InfluxDB itself.
				tg := startTelegraf(t, program, onlyWhenAsked, fmt.Sprintf(kafkaOutput, codec)+hostTag+"[[inputs.procnetstat]]\n")
				config := filepath.Join(t.TempDir(), "consumer.conf")
				if err := os.WriteFile(config, []byte(kafkaConsumer), 0o600); err != nil {
					t.Fatal(err)
				}
				consumer := startServer(t, program, "--config", config)
				const gathers = 3
				for range gathers {
					at := tg.gatherAfter(time.Now().UnixNano(), lastMeasurement)
					waitFor(t, fmt.Sprintf("gather of %d in InfluxDB", at), func() bool {
						consumer.check()
						tg.read()
						return maps.EqualFunc(db.since(at)[at], tg.seen[at], maps.Equal)
					})
				}
				tg.requireNoErrors()
			})
		})
	}
}

func buildKafka() (string, error) {
	program := filepath.Join(os.Getenv(scratchEnv), "kafka")
	build := goTool("build", "-o", program, ".")
	build.Dir = "../kafka"
	return program, run(build)
}
