option task = {name: "CloseWaitGrows", every: 1m}

closeWait = (start) => from(bucket: "telegraf")
  |> range(start: start)
  |> filter(fn: (r) => r._measurement == "procnetstat_process" and r._field == "tcp_close_wait" and r.process_name != "other")

union(tables: [
    closeWait(start: -1m) |> last() |> set(key: "_field", value: "close_wait"),
    closeWait(start: -15m) |> difference() |> cumulativeSum() |> last() |> set(key: "_field", value: "growth"),
])
  |> group(columns: ["host", "netns", "process_name"])
  |> reduce(
      identity: {_value: 0, growth: 0},
      fn: (r, accumulator) => ({
          _value: accumulator._value + (if r._field == "close_wait" then r._value else 0),
          growth: accumulator.growth + (if r._field == "growth" then r._value else 0),
      }),
  )
  |> filter(fn: (r) => r._value > 50 and r.growth > 10)
  |> drop(columns: ["growth"])
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "CloseWaitGrows"}))
  |> to(bucket: "alerts")
