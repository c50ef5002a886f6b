option task = {name: "TimeWaitNearlyFull", every: 1m}

from(bucket: "telegraf")
  |> range(start: -1m)
  |> filter(fn: (r) => r._measurement == "procnetstat" and (r._field == "tcp_time_wait" or r._field == "tcp_time_wait_limit"))
  |> last()
  |> group(columns: ["host", "netns"])
  |> reduce(
      identity: {used: 0.0, limit: 0.0},
      fn: (r, accumulator) => ({
          used: if r._field == "tcp_time_wait" and float(v: r._value) > accumulator.used then
              float(v: r._value)
          else
              accumulator.used,
          limit: if r._field == "tcp_time_wait_limit" and float(v: r._value) > accumulator.limit then
              float(v: r._value)
          else
              accumulator.limit,
      }),
  )
  |> filter(fn: (r) => r.limit != 0.0)
  |> map(fn: (r) => ({r with _value: 100.0 * r.used / r.limit}))
  |> filter(fn: (r) => r._value > 80.0)
  |> drop(columns: ["used", "limit"])
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "TimeWaitNearlyFull"}))
  |> to(bucket: "alerts")
