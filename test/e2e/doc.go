// Package e2e tests procnetstat as users run it: a real Telegraf, with the plugin built in or with the program procnetstat in
// inputs.execd, writes to a real InfluxDB. The tests compare the contents of InfluxDB with the output of ss.
//
//	go test ./test/e2e
//
// Each test has a network namespace of its own, in which InfluxDB, Telegraf and a known load of sockets run. So every socket is
// known, including those of InfluxDB and Telegraf, and no comparison needs a tolerance: the test runs ss before and after a
// gather, and uses the gather if ss printed the same. Only the counters of sockets that retransmit may change in between; they
// must lie between the values of ss before and after. Prometheus, which scrapes Telegraf, is compared with the gathers.
//
// The tests require root, influxd 1.x, ss, prometheus and promtool. A test that lacks one of them is skipped with the reason;
// with CI=true it fails. The tests build the programs that they run, unless these variables have absolute paths of built ones:
//
//	E2E_BIN             a directory with our telegraf and procnetstat
//	E2E_STOCK_TELEGRAF  a Telegraf built in Telegraf's own module, as by buildStock
package e2e
