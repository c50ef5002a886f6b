option task = {name: "SocketsUnattributed", every: 1m}

from(bucket: "telegraf")
  |> range(start: -1m)
  |> filter(fn: (r) => r._measurement == "procnetstat_process" and r._field == "tcp_established")
  |> last()
  |> group(columns: ["host", "netns"])
  |> reduce(
      identity: {unattributed: 0.0, all: 0.0},
      fn: (r, accumulator) => ({
          unattributed: accumulator.unattributed + (if r.process_name == "unattributed" then float(v: r._value) else 0.0),
          all: accumulator.all + float(v: r._value),
      }),
  )
  |> filter(fn: (r) => r.all > 10.0)
  |> map(fn: (r) => ({r with _value: 100.0 * r.unattributed / r.all}))
  |> filter(fn: (r) => r._value > 10.0)
  |> drop(columns: ["unattributed", "all"])
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "SocketsUnattributed"}))
  |> to(bucket: "alerts")
