option task = {name: "ListenerDrops", every: 1m}

from(bucket: "telegraf")
  |> range(start: -5m)
  |> filter(fn: (r) => r._measurement == "procnetstat_listener" and r._field == "drops")
  |> increase()
  |> last()
  |> group(columns: ["host", "netns", "process_name", "interface", "local_address", "local_port"])
  |> sum()
  |> filter(fn: (r) => r._value > 0)
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "ListenerDrops"}))
  |> to(bucket: "alerts")
