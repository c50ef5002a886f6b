package main

// What is built in; `telegraf plugins` prints it.
//
// Beside the inputs and outputs that a host with procnetstat is likely to need, these are the processors, aggregators,
// parsers and serializers of Telegraf that bring no large dependency. Left out, with what they would bring:
//   - processors: aws_ec2 (the EC2 API), filepath (testcontainers and a Docker client, by way of a test helper), ifname
//     and snmp_lookup (an SNMP client), noise (gonum), starlark (an interpreter)
//   - aggregators: starlark
//   - parsers: avro, collectd, openmetrics, parquet, prometheusremotewrite, xpath (a decoder each)
//   - serializers: cloudevents, msgpack, prometheusremotewrite (an encoder each)
//
// inputs.internal is not here because Go lets nobody but Telegraf import a package of that name; internal.go stands in.
import (
	_ "github.com/influxdata/telegraf/plugins/inputs/cpu"
	_ "github.com/influxdata/telegraf/plugins/inputs/exec"
	_ "github.com/influxdata/telegraf/plugins/inputs/execd"
	_ "github.com/influxdata/telegraf/plugins/inputs/kafka_consumer"
	_ "github.com/influxdata/telegraf/plugins/inputs/kernel"
	_ "github.com/influxdata/telegraf/plugins/inputs/mem"
	_ "github.com/influxdata/telegraf/plugins/inputs/net"
	_ "github.com/influxdata/telegraf/plugins/inputs/netstat"
	_ "github.com/influxdata/telegraf/plugins/inputs/nstat"
	_ "github.com/influxdata/telegraf/plugins/inputs/procstat"
	_ "github.com/influxdata/telegraf/plugins/inputs/system"

	_ "github.com/influxdata/telegraf/plugins/outputs/discard"
	_ "github.com/influxdata/telegraf/plugins/outputs/execd"
	_ "github.com/influxdata/telegraf/plugins/outputs/file"
	_ "github.com/influxdata/telegraf/plugins/outputs/graphite"
	_ "github.com/influxdata/telegraf/plugins/outputs/http"
	_ "github.com/influxdata/telegraf/plugins/outputs/influxdb"
	_ "github.com/influxdata/telegraf/plugins/outputs/influxdb_v2"
	_ "github.com/influxdata/telegraf/plugins/outputs/kafka"
	_ "github.com/influxdata/telegraf/plugins/outputs/mqtt"
	_ "github.com/influxdata/telegraf/plugins/outputs/prometheus_client"
	_ "github.com/influxdata/telegraf/plugins/outputs/socket_writer"

	_ "github.com/influxdata/telegraf/plugins/processors/batch"
	_ "github.com/influxdata/telegraf/plugins/processors/clone"
	_ "github.com/influxdata/telegraf/plugins/processors/converter"
	_ "github.com/influxdata/telegraf/plugins/processors/cumulative_sum"
	_ "github.com/influxdata/telegraf/plugins/processors/date"
	_ "github.com/influxdata/telegraf/plugins/processors/dedup"
	_ "github.com/influxdata/telegraf/plugins/processors/defaults"
	_ "github.com/influxdata/telegraf/plugins/processors/enum"
	_ "github.com/influxdata/telegraf/plugins/processors/execd"
	_ "github.com/influxdata/telegraf/plugins/processors/filter"
	_ "github.com/influxdata/telegraf/plugins/processors/lookup"
	_ "github.com/influxdata/telegraf/plugins/processors/override"
	_ "github.com/influxdata/telegraf/plugins/processors/parser"
	_ "github.com/influxdata/telegraf/plugins/processors/pivot"
	_ "github.com/influxdata/telegraf/plugins/processors/port_name"
	_ "github.com/influxdata/telegraf/plugins/processors/printer"
	_ "github.com/influxdata/telegraf/plugins/processors/regex"
	_ "github.com/influxdata/telegraf/plugins/processors/rename"
	_ "github.com/influxdata/telegraf/plugins/processors/reverse_dns"
	_ "github.com/influxdata/telegraf/plugins/processors/round"
	_ "github.com/influxdata/telegraf/plugins/processors/s2geo"
	_ "github.com/influxdata/telegraf/plugins/processors/scale"
	_ "github.com/influxdata/telegraf/plugins/processors/split"
	_ "github.com/influxdata/telegraf/plugins/processors/strings"
	_ "github.com/influxdata/telegraf/plugins/processors/tag_limit"
	_ "github.com/influxdata/telegraf/plugins/processors/template"
	_ "github.com/influxdata/telegraf/plugins/processors/timestamp"
	_ "github.com/influxdata/telegraf/plugins/processors/topk"
	_ "github.com/influxdata/telegraf/plugins/processors/unpivot"

	_ "github.com/influxdata/telegraf/plugins/aggregators/basicstats"
	_ "github.com/influxdata/telegraf/plugins/aggregators/derivative"
	_ "github.com/influxdata/telegraf/plugins/aggregators/final"
	_ "github.com/influxdata/telegraf/plugins/aggregators/histogram"
	_ "github.com/influxdata/telegraf/plugins/aggregators/merge"
	_ "github.com/influxdata/telegraf/plugins/aggregators/minmax"
	_ "github.com/influxdata/telegraf/plugins/aggregators/quantile"
	_ "github.com/influxdata/telegraf/plugins/aggregators/valuecounter"

	_ "github.com/influxdata/telegraf/plugins/parsers/binary"
	_ "github.com/influxdata/telegraf/plugins/parsers/csv"
	_ "github.com/influxdata/telegraf/plugins/parsers/dropwizard"
	_ "github.com/influxdata/telegraf/plugins/parsers/form_urlencoded"
	_ "github.com/influxdata/telegraf/plugins/parsers/graphite"
	_ "github.com/influxdata/telegraf/plugins/parsers/grok"
	_ "github.com/influxdata/telegraf/plugins/parsers/influx"
	_ "github.com/influxdata/telegraf/plugins/parsers/influx/influx_upstream"
	_ "github.com/influxdata/telegraf/plugins/parsers/json"
	_ "github.com/influxdata/telegraf/plugins/parsers/json_v2"
	_ "github.com/influxdata/telegraf/plugins/parsers/logfmt"
	_ "github.com/influxdata/telegraf/plugins/parsers/nagios"
	_ "github.com/influxdata/telegraf/plugins/parsers/opentsdb"
	_ "github.com/influxdata/telegraf/plugins/parsers/prometheus"
	_ "github.com/influxdata/telegraf/plugins/parsers/value"
	_ "github.com/influxdata/telegraf/plugins/parsers/wavefront"

	_ "github.com/influxdata/telegraf/plugins/serializers/binary"
	_ "github.com/influxdata/telegraf/plugins/serializers/carbon2"
	_ "github.com/influxdata/telegraf/plugins/serializers/csv"
	_ "github.com/influxdata/telegraf/plugins/serializers/graphite"
	_ "github.com/influxdata/telegraf/plugins/serializers/influx"
	_ "github.com/influxdata/telegraf/plugins/serializers/json"
	_ "github.com/influxdata/telegraf/plugins/serializers/nowmetric"
	_ "github.com/influxdata/telegraf/plugins/serializers/prometheus"
	_ "github.com/influxdata/telegraf/plugins/serializers/splunkmetric"
	_ "github.com/influxdata/telegraf/plugins/serializers/template"
	_ "github.com/influxdata/telegraf/plugins/serializers/wavefront"

	_ "github.com/procnetstat/procnetstat/plugins/inputs/procnetstat"
)
