// Package e2e tests procnetstat as it is used: a real Telegraf, with the plugin built in or with inputs.execd and the program
// procnetstat, writes to a real InfluxDB, and what InfluxDB then has is compared with what ss says.
//
//	go test ./test/e2e
//
// Each test has a network namespace of its own. In it run InfluxDB, Telegraf and a known load of sockets, so that all the
// sockets there are can be told one by one, those of InfluxDB and Telegraf included. No number is compared with a tolerance:
// ss is asked before and after a gather, and the gather counts if nothing changed in between. Where sockets send again and again
// what their peers do not hear, the counters are between what ss says before and after. What a Prometheus has that scrapes
// Telegraf is compared with the gathers that it is of.
//
// The tests want root, influxd 1.x, ss, prometheus and promtool. A test that lacks one of them is skipped with the reason, and
// fails where CI=true. They build the programs that they need, unless these variables name built ones, by absolute paths:
//
//	E2E_BIN             a directory with our telegraf and procnetstat
//	E2E_STOCK_TELEGRAF  a Telegraf built from Telegraf's own module, as buildStock does it
package e2e
