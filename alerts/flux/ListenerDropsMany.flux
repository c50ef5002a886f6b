option task = {name: "ListenerDropsMany", every: 1m}

from(bucket: "telegraf")
  |> range(start: -5m)
  |> filter(fn: (r) => r._measurement == "procnetstat_listener" and (r._field == "drops" or r._field == "tcp_opened"))
  |> increase()
  |> last()
  |> group(columns: ["host", "netns", "interface", "local_address", "local_port"])
  |> reduce(
      identity: {dropped: 0.0, opened: 0.0, counted: false},
      fn: (r, accumulator) => ({
          dropped: accumulator.dropped + (if r._field == "drops" then float(v: r._value) else 0.0),
          opened: accumulator.opened + (if r._field == "tcp_opened" then float(v: r._value) else 0.0),
          counted: accumulator.counted or r._field == "tcp_opened",
      }),
  )
  |> filter(fn: (r) => r.counted and r.dropped != 0.0)
  |> map(fn: (r) => ({r with _value: 100.0 * r.dropped / (r.dropped + r.opened)}))
  |> filter(fn: (r) => r._value > 1.0)
  |> drop(columns: ["dropped", "opened", "counted"])
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "ListenerDropsMany"}))
  |> to(bucket: "alerts")
