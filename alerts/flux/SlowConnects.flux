option task = {name: "SlowConnects", every: 1m}

from(bucket: "telegraf")
  |> range(start: -5m)
  |> filter(fn: (r) => r._measurement == "procnetstat_process" and r._field == "tcp_connect_p95_us" and r.process_name != "other")
  |> toFloat()
  |> median(method: "exact_mean")
  |> group(columns: ["host", "netns", "process_name"])
  |> max()
  |> keep(columns: ["host", "netns", "process_name", "_value"])
  |> map(fn: (r) => ({r with _value: r._value / 1000000.0}))
  |> filter(fn: (r) => r._value > 0.5)
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "SlowConnects"}))
  |> to(bucket: "alerts")
