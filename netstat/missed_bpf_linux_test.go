//go:build amd64 || arm64

package netstat

import (
	"net/netip"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// While processes begin and give up attempts, timers of others expire, and the kernel does not run the program for some of them. Each
// attempt is an end or counts as lost.
func TestAttemptsAreEndsOrLost(t *testing.T) {
	testnet.RequireBPF(t)
	testnet.Require(t, "nft")
	testnet.Isolate(t, func() {
		testnet.Sysctl(t, "net.ipv4.tcp_syn_retries", "1")
		out, err := exec.CommandContext(t.Context(), "nft", "add table inet cut; "+
			"add chain inet cut input { type filter hook input priority 0; }; add rule inet cut input tcp dport 99 drop").CombinedOutput()
		require.NoError(t, err, "%s", out)
		client := testnet.Start(t, testnet.Process{Name: "client"})
		scanner := newClosedScanner(t, ScannerConfig{OwnerMethod: OwnersBPF})
		got, lost := map[Outcome]int{}, 0
		scan := func() {
			for s, err := range scanner.Sockets(t.Context()) {
				require.NoError(t, err)
				if s.Closed && s.HasPeer() {
					got[s.Outcome]++
				}
			}
			lost += scanner.Stats().AttemptsLost
		}
		scan()

		const rounds, perRound = 20, 50
		to := netip.MustParseAddrPort("127.0.0.1:99")
		var begun []testnet.Socket
		for range rounds {
			begun = append(begun, client.Begin(testnet.Attempts{To: to, N: perRound})...)
		}
		// There are fewer attempts than records, so that those that time out are known when their sockets are destroyed.
		const mostAborted = 1 << 15
		var aborted atomic.Int64
		var aborting sync.WaitGroup
		finished := make(chan struct{})
		for range 3 {
			aborting.Go(func() {
				for range mostAborted / 3 {
					select {
					case <-finished:
						return
					default:
					}
					fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
					if err == nil {
						_ = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
						err = unix.Close(fd)
					}
					if err != nil {
						t.Error(err)
						return
					}
					if aborted.Add(1)%3 == 0 {
						time.Sleep(time.Millisecond) // the attempts last until timers expire
					}
				}
			})
		}
		client.Finish(begun...)
		close(finished)
		aborting.Wait()
		want := rounds*perRound + int(aborted.Load())
		ended := func() int { return got[OutcomeConnectTimedOut] + got[OutcomeConnectAborted] + lost }
		require.Eventually(t, func() bool { scan(); return ended() >= want }, 10*time.Second, time.Millisecond, "of %d: %v, %d lost", want, got, lost)
		t.Logf("of %d attempts %d lost", want, lost)
		require.Zero(t, got[OutcomeClosed]+got[OutcomeUnknown])
		require.LessOrEqual(t, got[OutcomeConnectTimedOut], rounds*perRound)
		require.LessOrEqual(t, got[OutcomeConnectAborted], int(aborted.Load()))
		require.GreaterOrEqual(t, ended(), want)
	})
}
