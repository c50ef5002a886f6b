module github.com/procnetstat/procnetstat/test/flux

go 1.26.0

require github.com/influxdata/flux v0.39.0

require (
	github.com/apache/arrow/go/arrow v0.0.0-20190809133625-b98a560fc561 // indirect
	github.com/cespare/xxhash v1.1.0 // indirect
	github.com/go-sql-driver/mysql v1.4.0 // indirect
	github.com/google/go-cmp v0.2.0 // indirect
	github.com/influxdata/line-protocol v0.0.0-20180522152040-32c6aa80de5e // indirect
	github.com/influxdata/tdigest v0.0.0-20181121200506-bf2b5ad3c0a9 // indirect
	github.com/lib/pq v1.0.0 // indirect
	github.com/opentracing/opentracing-go v1.0.2 // indirect
	github.com/pkg/errors v0.8.1 // indirect
	github.com/satori/go.uuid v1.2.0 // indirect
	github.com/segmentio/kafka-go v0.1.0 // indirect
	go.uber.org/atomic v1.3.2 // indirect
	go.uber.org/multierr v1.1.0 // indirect
	go.uber.org/zap v1.9.1 // indirect
	golang.org/x/net v0.0.0-20190404232315-eb5bcb51f2a3 // indirect
)
