//go:build linux

package procnetstat

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// tagsIn returns the tags of namespaces in a pass.
func tagsIn(all *scopes, namespaces ...*netstat.Namespace) (tags []string) {
	all.begin()
	for _, n := range namespaces {
		tags = append(tags, all.get(n).tag)
	}
	return tags
}

func TestNetNSTags(t *testing.T) {
	for _, test := range []struct {
		name       string
		namespaces []*netstat.Namespace
		want       []string
	}{
		{
			"each in its way",
			[]*netstat.Namespace{
				{ID: 1, Self: true, Inode: 1, PID: 10}, {ID: 2, Inode: 2, Name: "blue", PID: 20}, {ID: 3, Inode: 3, PID: 30},
				{ID: 4, PID: 40},
			},
			[]string{"self", "blue", "3", "pid:40"},
		},
		{
			"the own one is self, also with a name",
			[]*netstat.Namespace{{ID: 1, Self: true, Inode: 1, Name: "blue"}},
			[]string{"self"},
		},
		{
			"another that is called so",
			[]*netstat.Namespace{{ID: 1, Self: true, Inode: 1}, {ID: 2, Inode: 2, Name: "self"}},
			[]string{"self", `\x73elf`},
		},
		{
			"a name like a number",
			[]*netstat.Namespace{{ID: 1, Inode: 3, Name: "2"}, {ID: 2, Inode: 2}},
			[]string{"2", "2-2"},
		},
		{
			"bytes that are not printable",
			[]*netstat.Namespace{{ID: 1, Inode: 2, Name: "a\nb\xff"}},
			[]string{`a\x0ab\xff`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var all scopes
			for range 3 {
				require.Equal(t, test.want, tagsIn(&all, test.namespaces...))
			}
		})
	}
}

// TestWholeScope: what holds for all namespaces is what holds for each.
func TestWholeScope(t *testing.T) {
	const info, bytes, segs = netstat.FieldTCPInfo, netstat.FieldTCPBytes, netstat.FieldTCPSegs
	all := scopes{protocols: tcpUDP, all: []*scope{
		{read: tcpUDP, tcpFields: info | bytes, closedEvents: true},
		{read: tcpOnly, tcpFields: info | segs, closedEvents: true},
	}}
	require.Equal(t, scope{read: tcpOnly, tcpFields: info, closedEvents: true}, all.common())
	for _, of := range all.all {
		of.closedEvents = false
		require.False(t, all.common().closedEvents)
		of.closedEvents = true
	}
	require.Equal(t, tcpUDP, all.protocols)
}

// TestNetNSTagsFromPassToPass: a tag follows the name of the namespace, and is otherwise the same as long as it is found.
func TestNetNSTagsFromPassToPass(t *testing.T) {
	var all scopes
	a, b := netstat.Namespace{ID: 1, Inode: 2, PID: 20}, netstat.Namespace{ID: 2, Inode: 3, PID: 30}
	blueA, blueB := a, b
	blueA.Name, blueB.Name = "blue", "blue"
	require.Equal(t, []string{"2", "3"}, tagsIn(&all, &a, &b))
	require.Equal(t, []string{"blue", "3"}, tagsIn(&all, &blueA, &b))
	require.Equal(t, []string{"2", "blue"}, tagsIn(&all, &a, &blueB))
	require.Same(t, all.get(&a), all.get(&blueA), "it is the same namespace")
	require.Equal(t, []string{"2"}, tagsIn(&all, &a))
	require.Equal(t, []string{"2", "blue"}, tagsIn(&all, &a, &blueB))
	require.Len(t, all.previous, 1, "of namespaces that are gone nothing is kept")
}

// TestScopesEnd: after the scan a scope has the namespace as it is then, and one without sockets has a scope.
func TestScopesEnd(t *testing.T) {
	var all scopes
	all.begin()
	before, after, empty := &netstat.Namespace{ID: 1, PID: 20}, &netstat.Namespace{ID: 1, PID: 21}, &netstat.Namespace{ID: 2, PID: 30}
	in := all.get(before)
	all.end([]*netstat.Namespace{after, empty})
	require.Len(t, all.all, 2)
	require.Same(t, in, all.all[0])
	require.Same(t, after, in.namespace)
	require.Same(t, empty, all.all[1].namespace)
}

// TestNetNSTagsByProcess: one whose number may not be seen keeps the tag when the process that gave it has ended, and another
// one does not get it.
func TestNetNSTagsByProcess(t *testing.T) {
	var all scopes
	a, b := &netstat.Namespace{ID: 1, PID: 20}, &netstat.Namespace{ID: 2, PID: 30}
	require.Equal(t, []string{"pid:20", "pid:30"}, tagsIn(&all, a, b))
	a = &netstat.Namespace{ID: 1, PID: 21}
	c := &netstat.Namespace{ID: 3, PID: 20}
	require.Equal(t, []string{"pid:20", "pid:30", "pid:20-2"}, tagsIn(&all, a, b, c))
	require.Equal(t, []string{"pid:20-2", "pid:20"}, tagsIn(&all, c, a))
}
