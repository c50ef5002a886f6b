//go:build linux

package procnetstat

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// The process at the other end is the one that listens at the address, in the namespace that has it.
func TestProcessAt(t *testing.T) {
	p := newPass(noFilters(t), everyDetail, newUserNames(nil), newCgroups(false, "", nil))
	red, blue := &netstat.Namespace{ID: 2}, &netstat.Namespace{ID: 3}
	all := &scopes{}
	for _, n := range []*netstat.Namespace{&own, red, blue} {
		all.all = append(all.all, &scope{namespace: n, read: tcpOnly})
	}
	begin := func() {
		if p.listeners.pass > 0 {
			p.end(all)
		}
		p.begin(time.Unix(1000, 0), false)
	}
	listen := func(in *netstat.Namespace, local, name string) {
		s := listeningOn(local)
		s.Namespace = in
		p.listeners.observe(s, []*owner{{process: &netstat.Process{Name: name}, name: name}}, nil)
		p.localAddrs.add(s) // any process can bind to any address: it is no evidence
	}
	address := func(in *netstat.Namespace, local string) {
		s := connectionTo(local, 0)
		s.Namespace = in
		p.localAddrs.add(s)
	}
	at := func(from *netstat.Namespace, remote string) string {
		return p.processAt(from.ID, netstat.TransportTCP, netip.MustParseAddrPort(remote))
	}
	begin()
	listen(&own, "127.0.0.1:80", "own")
	listen(red, "[::1]:80", "red")
	listen(red, "0.0.0.0:5432", "postgres")
	listen(blue, "[::]:5432", "pgbouncer")
	listen(blue, "192.0.2.9:443", "nginx")
	for i := range 3 {
		require.Equal(t, "own", at(&own, "127.0.0.1:80"))
		require.Empty(t, at(red, "127.0.0.1:80"), "the loopback of each namespace is its own")
		require.Equal(t, "red", at(red, "[::1]:80"))
		require.Equal(t, "postgres", at(red, "127.0.0.1:5432"))
		require.Equal(t, "pgbouncer", at(blue, "127.0.0.1:5432"), "dual stack")
		if i == 0 {
			require.Empty(t, at(&own, "192.0.2.2:5432"), "nothing is known of the address")
			require.Empty(t, at(&own, "192.0.2.9:443"), "nothing but a bound socket")
			address(blue, "192.0.2.9:443")
			address(red, "192.0.2.2:5432")
			address(blue, "[::ffff:192.0.2.3]:40000")
		}
		require.Equal(t, "postgres", at(&own, "192.0.2.2:5432"))
		require.Equal(t, "postgres", at(blue, "192.0.2.2:5432"))
		require.Equal(t, "pgbouncer", at(&own, "192.0.2.3:5432"))
		require.Equal(t, "nginx", at(&own, "192.0.2.9:443"))
		require.Empty(t, at(&own, "192.0.2.3:5433"))
		require.Empty(t, p.processAt(own.ID, netstat.TransportUDP, netip.MustParseAddrPort("192.0.2.3:5432")))
		if i == 1 {
			begin()
			listen(&own, "127.0.0.1:80", "own")
			listen(red, "[::1]:80", "red")
			listen(red, "0.0.0.0:5432", "postgres")
			listen(blue, "[::]:5432", "pgbouncer")
			listen(blue, "192.0.2.9:443", "nginx")
		}
	}
	address(blue, "192.0.2.2:5432")
	require.Empty(t, at(&own, "192.0.2.2:5432"), "two namespaces have the address")
	require.Equal(t, "postgres", at(red, "192.0.2.2:5432"), "its own address")
	all.all = all.all[:2]
	begin()
	listen(red, "0.0.0.0:5432", "postgres")
	require.Equal(t, "postgres", at(&own, "192.0.2.2:5432"), "one of them is gone")
	require.Empty(t, at(&own, "192.0.2.9:443"))
	begin()
	require.Empty(t, at(&own, "192.0.2.2:5432"), "the listener is gone")
}

// The addresses that a namespace makes known are bounded, and those of all.
func TestLocalAddrsAreBounded(t *testing.T) {
	var a localAddrs
	address := func(namespace uint64, i int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(namespace), byte(i >> 8), byte(i)})
	}
	all := &scopes{}
	for namespace := uint64(1); namespace <= 70; namespace++ {
		in := &netstat.Namespace{ID: namespace}
		all.all = append(all.all, &scope{namespace: in})
		for i := range 2 * maxLocalAddrs {
			s := connectionTo(web, 0)
			s.Namespace, s.Local = in, netip.AddrPortFrom(address(namespace, i), 1)
			a.add(s)
		}
	}
	require.Len(t, a.namespaces, 70*maxLocalAddrs)
	one := &scopes{all: all.all[:1]}
	b := a
	a.finish(all)
	require.Empty(t, a.namespaces, "too many: all are forgotten")
	b.inUse[1]--
	b.finish(one)
	require.Empty(t, b.namespaces)
}
