option task = {name: "IdleGrows", every: 1m}

idle = (start) => from(bucket: "telegraf")
  |> range(start: start)
  |> filter(fn: (r) => r._measurement == "procnetstat_process" and r._field == "tcp_idle" and r.process_name != "other")

union(tables: [
    idle(start: -1m) |> last() |> set(key: "_field", value: "idle"),
    idle(start: -6h) |> difference() |> cumulativeSum() |> last() |> set(key: "_field", value: "growth"),
])
  |> group(columns: ["host", "netns", "process_name"])
  |> reduce(
      identity: {_value: 0, growth: 0},
      fn: (r, accumulator) => ({
          _value: accumulator._value + (if r._field == "idle" then r._value else 0),
          growth: accumulator.growth + (if r._field == "growth" then r._value else 0),
      }),
  )
  |> filter(fn: (r) => r._value > 100 and r.growth > 50)
  |> drop(columns: ["growth"])
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "IdleGrows"}))
  |> to(bucket: "alerts")
