option task = {name: "SeriesFolded", every: 1m}

from(bucket: "telegraf")
  |> range(start: -1m)
  |> filter(fn: (r) => r._measurement == "procnetstat_gather" and r._field == "folded_series")
  |> last()
  |> group(columns: ["host"])
  |> max()
  |> keep(columns: ["host", "_value"])
  |> filter(fn: (r) => r._value > 0)
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "SeriesFolded"}))
  |> to(bucket: "alerts")
