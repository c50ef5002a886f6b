option task = {name: "GathersStopped", every: 1m}

gathers = (start) => from(bucket: "telegraf")
  |> range(start: start)
  |> filter(fn: (r) => r._measurement == "procnetstat_gather" and r._field == "sockets")
  |> last()

union(tables: [
    gathers(start: -1h) |> map(fn: (r) => ({r with _value: 0})),
    gathers(start: -5m) |> map(fn: (r) => ({r with _value: 1})),
])
  |> group(columns: ["host"])
  |> max()
  |> keep(columns: ["host", "_value"])
  |> filter(fn: (r) => r._value == 0)
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "GathersStopped"}))
  |> to(bucket: "alerts")
