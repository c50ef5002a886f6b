//go:build linux

package procnetstat

import "github.com/procnetstat/procnetstat/netstat"

// undecided are connections of a namespace that can only be attributed after its other live sockets:
//   - New ones without a known listener. A listener that accepted one and closed since the last pass is reported after the live
//     sockets. Until then it is not known whether they are outgoing.
//   - Those that nobody holds, of a listener that several programs hold. They count for the program that accepts connections.
type undecided struct {
	rows    []undecidedRow
	holders []*owner // of all rows
}

type undecidedRow struct {
	socket      netstat.Socket // without its owners
	number      uint64
	delta       traffic
	idle        bool
	flow        int // index in flowTable.all
	first, last int // indexes of its holders
}

// maxUndecided bounds the memory. Sockets beyond it are attributed at once, by what is known then.
const maxUndecided = 8192

func (u *undecided) isFull() bool { return len(u.rows) == maxUndecided }

func (u *undecided) add(o *observation, flow int) {
	first := len(u.holders)
	u.holders = append(u.holders, o.holders...)
	u.rows = append(u.rows, undecidedRow{*o.Socket, o.number, o.delta, o.idle, flow, first, len(u.holders)})
}

func (u *undecided) clear() {
	clear(u.rows) // releases the names
	clear(u.holders)
	u.rows, u.holders = u.rows[:0], u.holders[:0]
}

// mustSettle reports whether settle must be called before the socket is observed: what is undecided is decided by the destroyed
// listeners, which come before the destroyed connections.
func (p *pass) mustSettle(s *netstat.Socket) bool {
	return len(p.undecided.rows) > 0 && (p.scope.namespace != s.Namespace || s.Closed && s.HasPeer())
}

// settle decides the undecided connections of the scope, and calls count for each.
func (p *pass) settle(count func(*observation)) {
	for i := range p.undecided.rows {
		row := &p.undecided.rows[i]
		o := &p.current
		o.Socket, o.number, o.delta, o.idle = &row.socket, row.number, row.delta, row.idle
		o.holders = p.undecided.holders[row.first:row.last]
		f := &p.flows.table.all[row.flow]
		if f.has(flowDecided) { // the dump has repeated it
			o.listener = p.flows.belongings.get(f.belonging).listener
		} else if o.listener = p.listeners.findForLive(o.Socket); o.listener == nil && p.initiatorsKnown {
			f.flags |= flowUnexplained
		}
		p.attribute(o, f)
		o.wanted = p.wants(o)
		count(o)
	}
	p.undecided.clear()
}
