option task = {name: "ClosedEventsLost", every: 1m}

from(bucket: "telegraf")
  |> range(start: -5m)
  |> filter(fn: (r) => r._measurement == "procnetstat_gather" and r._field == "closed_events_lost")
  |> increase()
  |> last()
  |> group(columns: ["host"])
  |> sum()
  |> filter(fn: (r) => r._value > 0)
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "ClosedEventsLost"}))
  |> to(bucket: "alerts")
