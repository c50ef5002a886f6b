option task = {name: "ManyRetransmits", every: 1m}

from(bucket: "telegraf")
  |> range(start: -5m)
  |> filter(fn: (r) => r._measurement == "procnetstat_process" and r.process_name != "other")
  |> filter(fn: (r) => r._field == "tcp_retrans_segs" or r._field == "tcp_segs_out")
  |> increase()
  |> last()
  |> group(columns: ["host", "netns", "process_name"])
  |> reduce(
      identity: {again: 0.0, sent: 0.0},
      fn: (r, accumulator) => ({
          again: accumulator.again + (if r._field == "tcp_retrans_segs" then float(v: r._value) else 0.0),
          sent: accumulator.sent + (if r._field == "tcp_segs_out" then float(v: r._value) else 0.0),
      }),
  )
  |> filter(fn: (r) => r.sent > 1000.0)
  |> map(fn: (r) => ({r with _value: 100.0 * r.again / r.sent}))
  |> filter(fn: (r) => r._value > 5.0)
  |> drop(columns: ["again", "sent"])
  |> map(fn: (r) => ({r with _time: now(), _measurement: "alerts", _field: "ManyRetransmits"}))
  |> to(bucket: "alerts")
