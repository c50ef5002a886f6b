option task = {name: "TCPMemoryNearlyUsedUp", every: 1m}

from(bucket: "telegraf")
  |> range(start: -1m)
  |> filter(fn: (r) => r._measurement == "procnetstat" and (r._field == "tcp_mem_bytes" or r._field == "tcp_mem_limit_bytes"))
  |> last()
  |> group(columns: ["host"])
  |> reduce(
      identity: {used: 0.0, limit: 0.0},
      fn: (r, accumulator) => ({
          used: if r._field == "tcp_mem_bytes" and float(v: r._value) > accumulator.used then
              float(v: r._value)
          else
              accumulator.used,
          limit: if r._field == "tcp_mem_limit_bytes" and float(v: r._value) > accumulator.limit then
              float(v: r._value)
          else
              accumulator.limit,
      }),
  )
  |> filter(fn: (r) => r.limit != 0.0)
  |> map(fn: (r) => ({r with _value: 100.0 * r.used / r.limit}))
  |> filter(fn: (r) => r._value > 80.0)
  |> drop(columns: ["used", "limit"])
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "TCPMemoryNearlyUsedUp"}))
  |> to(bucket: "alerts")
