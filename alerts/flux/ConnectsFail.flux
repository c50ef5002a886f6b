option task = {name: "ConnectsFail", every: 1m}

from(bucket: "telegraf")
  |> range(start: -5m)
  |> filter(fn: (r) => r._measurement == "procnetstat_process" and r.process_name != "other")
  |> filter(
      fn: (r) =>
          r._field == "tcp_opened" or r._field == "tcp_connect_refused" or r._field == "tcp_connect_timed_out"
              or r._field == "tcp_connect_unreachable" or r._field == "tcp_connect_no_port",
  )
  |> increase()
  |> last()
  |> group(columns: ["host", "netns", "process_name"])
  |> reduce(
      identity: {failed: 0.0, opened: 0.0},
      fn: (r, accumulator) => ({
          failed: accumulator.failed + (if r._field != "tcp_opened" then float(v: r._value) else 0.0),
          opened: accumulator.opened + (if r._field == "tcp_opened" then float(v: r._value) else 0.0),
      }),
  )
  |> filter(fn: (r) => r.failed > 5.0 and r.opened != 0.0)
  |> map(fn: (r) => ({r with _value: 100.0 * r.failed / r.opened}))
  |> filter(fn: (r) => r._value > 10.0)
  |> drop(columns: ["failed", "opened"])
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "ConnectsFail"}))
  |> to(bucket: "alerts")
