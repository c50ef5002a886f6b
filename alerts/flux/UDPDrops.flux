option task = {name: "UDPDrops", every: 1m}

from(bucket: "telegraf")
  |> range(start: -5m)
  |> filter(fn: (r) => r._measurement == "procnetstat_process" and r._field == "udp_drops")
  |> increase()
  |> last()
  |> group(columns: ["host", "netns", "process_name"])
  |> sum()
  |> filter(fn: (r) => r._value > 10)
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "UDPDrops"}))
  |> to(bucket: "alerts")
