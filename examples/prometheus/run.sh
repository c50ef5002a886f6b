#!/bin/sh
# Shows the sockets of this host as graphs in the browser. Runs Telegraf and Prometheus until Ctrl-C, then removes their data.
set -eu
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
	echo "usage: $0 <telegraf with the plugin> [<port of the page>]" >&2
	exit 2
fi
page=127.0.0.1:${2:-9095}
here=$(dirname "$0")
data=$(mktemp -d)
pids=
trap '[ -z "$pids" ] || kill $pids 2>/dev/null || true; wait; rm -rf "$data"' EXIT
trap 'exit 0' INT TERM

"$1" --quiet --config "$here/telegraf.conf" &
pids=$!
prometheus --log.level=warn --config.file="$here/prometheus.yml" --storage.tsdb.path="$data" --web.listen-address="$page" &
pids="$pids $!"

# Two graphs by process: established connections, and connections in CLOSE_WAIT.
graph() { echo "g$1.tab=0&g$1.range_input=5m&g$1.expr=topk(10,sum%20by(process_name)($2))"; }
echo "http://$page/graph?$(graph 0 procnetstat_process_tcp_established)&$(graph 1 procnetstat_process_tcp_close_wait)"

# If one of them exits, stop the other.
# shellcheck disable=SC2086 # pids are two words
while kill -0 $pids 2>/dev/null; do sleep 1; done
for pid in $pids; do wait "$pid"; done
