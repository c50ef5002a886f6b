option task = {name: "AcceptQueueNearlyFull", every: 1m}

from(bucket: "telegraf")
  |> range(start: -1m)
  |> filter(fn: (r) => r._measurement == "procnetstat_listener" and r._field == "accept_queue_used_percent")
  |> last()
  |> group(columns: ["host", "netns", "process_name", "interface", "local_address", "local_port"])
  |> max()
  |> keep(columns: ["host", "netns", "process_name", "interface", "local_address", "local_port", "_value"])
  |> filter(fn: (r) => r._value > 80)
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "AcceptQueueNearlyFull"}))
  |> to(bucket: "alerts")
