//go:build linux

package procnetstat

import "slices"

// ownerGroup are owners that have the same name and user: usually one series.
type ownerGroup struct {
	name      string
	uid       uint32
	uidKnown  bool
	processes int
	accepting bool // one of them has held a connection that its listener accepted
	first     *owner
}

// representative returns the owner that a socket counts for that none of the owners holds now: of the group that is known to hold
// accepted connections, else of the one with the most processes, the process with the lowest pid. It is nil if there are no
// owners.
func (p *pass) representative(owners []*owner, isAccepting func(*owner) bool) *owner {
	switch len(owners) {
	case 0:
		return nil
	case 1:
		return owners[0]
	}
	p.groups = p.groups[:0]
	for _, w := range owners {
		uid, known := w.process.UID()
		i := slices.IndexFunc(p.groups, func(g ownerGroup) bool { return g.name == w.name && g.uid == uid && g.uidKnown == known })
		if i < 0 {
			i = len(p.groups)
			p.groups = append(p.groups, ownerGroup{name: w.name, uid: uid, uidKnown: known, first: w})
		}
		g := &p.groups[i]
		g.processes++
		g.accepting = g.accepting || isAccepting != nil && isAccepting(w)
		if w.process.PID < g.first.process.PID {
			g.first = w
		}
	}
	best := &p.groups[0]
	for i := range p.groups {
		if g := &p.groups[i]; g.isBetterThan(best) {
			best = g
		}
	}
	return best.first
}

func (g *ownerGroup) isBetterThan(other *ownerGroup) bool {
	switch {
	case g.accepting != other.accepting:
		return g.accepting
	case g.processes != other.processes:
		return g.processes > other.processes
	default:
		return g.first.process.PID < other.first.process.PID
	}
}

// representativeOf returns the owner that the sockets of the listener count for that nobody holds; nil if nobody is known to hold
// the listener. It is the same for all sockets of a pass, so it does not depend on their order.
func (p *pass) representativeOf(l *listener) *owner {
	if pass := p.listeners.pass; l.representativePass != pass {
		isAccepting := func(w *owner) bool { since := l.accepting[w]; return since != 0 && (!l.acceptingKnown || since < pass) }
		l.representative, l.representativePass = p.representative(l.holders, isAccepting), pass
	}
	return l.representative
}

// isAmbiguous reports whether the representative of the listener depends on sockets that this pass has not seen yet: several
// groups of processes hold it, and no earlier pass has seen which of them accepts connections.
func (p *pass) isAmbiguous(l *listener) bool {
	if l.acceptingKnown || len(l.holders) < 2 || l.representativePass == p.listeners.pass {
		return false
	}
	first := l.holders[0]
	uid, known := first.process.UID()
	return slices.ContainsFunc(l.holders[1:], func(w *owner) bool {
		id, isKnown := w.process.UID()
		return w.name != first.name || id != uid || isKnown != known
	})
}

// observeHolders records which holders of the listener hold connections that it accepted, and since which pass.
func (l *listener) observeHolders(holders []*owner, pass uint64) {
	if len(l.holders) < 2 {
		return // no choice
	}
	for _, w := range holders {
		if w.accepting == l {
			continue
		}
		w.accepting = l
		if l.accepting[w] != 0 || !slices.Contains(l.holders, w) {
			continue
		}
		if l.accepting == nil {
			l.accepting = map[*owner]uint64{}
		}
		l.accepting[w] = pass
	}
}
