#!/bin/sh
# Tells what a fleet of hosts like this one would send and store, by a gather of procnetstat in line protocol on standard input.
#
#   procnetstat -once | docs/fleet.sh hosts=1000 interval=10
set -eu

usage() {
	cat >&2 <<EOF
$1
usage: procnetstat -once | $0 [hosts=N] [interval=SECONDS] [influxdb=BYTES] [victoriametrics=BYTES]
  hosts            hosts like this one (1)
  interval         seconds between two gathers (10)
  influxdb         bytes that InfluxDB 1.x stores for a value (0.6)
  victoriametrics  bytes that VictoriaMetrics stores for a value (0.4)
EOF
	exit 2
}

hosts=1 interval=10 influxdb=0.6 victoriametrics=0.4
for argument; do
	case $argument in
	hosts=* | interval=* | influxdb=* | victoriametrics=*) ;;
	*) usage "unknown argument \"$argument\"" ;;
	esac
	value=${argument#*=}
	case $value in
	*[!0-9.]* | *.*.* | "" | .) usage "${argument%%=*} is \"$value\", want a number" ;;
	esac
	case ${value%%.*}${value#*.} in *[1-9]*) ;; *) usage "${argument%%=*} is \"$value\", want more than 0" ;; esac
	eval "${argument%%=*}=\$value"
done
if [ -t 0 ]; then usage "no gather on standard input"; fi

exec awk -v hosts="$hosts" -v interval="$interval" -v influxdb="$influxdb" -v victoriametrics="$victoriametrics" '
	# upto returns the number of characters before the first unquoted, unescaped character of a kind.
	function upto(text, character, i, c, quoted) {
		for (i = 1; i <= length(text); i++) {
			c = substr(text, i, 1)
			if (c == "\\") i++
			else if (c == "\"" && character != " ") quoted = !quoted
			else if (c == character && !quoted) return i - 1
		}
		return length(text)
	}
	function scaled(n, unit, i, prefixes) {
		split("|k|M|G|T|P", prefixes, "|")
		for (i = 1; n >= 1000 && i < 6; i++) n /= 1000
		n = sprintf(n < 10 ? "%.1f" : "%.0f", n) " " prefixes[i] unit
		sub(/ $/, "", n)
		return n
	}

	/^[[:space:]]*$/ || /^#/ { next }
	{
		sub(/^> /, "") # telegraf --test
		n = upto($0, " ")
		series = substr($0, 1, n)
		rest = substr($0, n + 2)
		if (n == 0 || index(rest, "=") == 0) {
			printf "line %d of standard input is not line protocol: %s\n", NR, substr($0, 1, 80) >"/dev/stderr"
			failed = 1
			exit 2
		}
		measurement = substr(series, 1, upto(series, ","))
		if (!(measurement in bytes)) order[++measurements] = measurement
		bytes[measurement] += length($0) + 1
		if (!(series in seen)) { seen[series] = 1; count[measurement]++ }
		do {
			values[measurement]++
			n = upto(rest, ",")
			rest = substr(rest, n + 2)
		} while (rest != "")
	}
	END {
		if (failed) exit 2
		if (!measurements) { print "no gather on standard input" >"/dev/stderr"; exit 2 }
		printf "%-24s %8s %8s %8s\n", "a gather of a host", "series", "values", "bytes"
		for (i = 1; i <= measurements; i++) {
			m = order[i]
			printf "%-24s %8d %8d %8d\n", m, count[m], values[m], bytes[m]
			s += count[m]; v += values[m]; b += bytes[m]
		}
		printf "%-24s %8d %8d %8d\n\n", "all", s, v, b
		perDay = v * hosts * 86400 / interval
		printf "%s %s, a gather every %s s\n", hosts, hosts == 1 ? "host" : "hosts", interval
		printf "  series in InfluxDB               %s\n", scaled(s * hosts)
		printf "  time series in VictoriaMetrics   %s\n", scaled(v * hosts)
		printf "  values a second                  %s\n", scaled(v * hosts / interval)
		printf "  line protocol a second           %s\n", scaled(b * hosts / interval, "B")
		printf "  InfluxDB stores a day            %s at %s bytes a value\n", scaled(perDay * influxdb, "B"), influxdb
		printf "  VictoriaMetrics stores a day     %s at %s bytes a value\n", scaled(perDay * victoriametrics, "B"), victoriametrics
	}
'
