option task = {name: "NoLocalPort", every: 1m}

from(bucket: "telegraf")
  |> range(start: -5m)
  |> filter(fn: (r) => r._measurement == "procnetstat_process" and r._field == "tcp_connect_no_port")
  |> increase()
  |> last()
  |> group(columns: ["host", "netns", "process_name"])
  |> sum()
  |> filter(fn: (r) => r._value > 0)
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "NoLocalPort"}))
  |> to(bucket: "alerts")
