package netstat_test

import (
	"net"
	"os/user"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// All names and types of the v1 API. Code that was written for it must compile.
var (
	_ string                                        = netstat.ProcRoot
	_ *string                                       = &netstat.ProcRoot
	_ []*netstat.Protocol                           = []*netstat.Protocol{netstat.TCP, netstat.TCP6, netstat.UDP, netstat.UDP6}
	_ func() ([]*netstat.Connection, error)         = netstat.TCP.Connections
	_ func(*netstat.Connection) (*user.User, error) = (*netstat.Connection).User

	_ = netstat.Protocol{Name: "tcp", RelPath: "net/tcp"}
	_ = netstat.Protocol{"tcp", "net/tcp"}

	_ = netstat.Connection{
		Exe:           "",
		Cmdline:       []string{},
		Pid:           int(0),
		UserID:        "",
		Inode:         uint64(0),
		IP:            net.IP{},
		Port:          int(0),
		RemoteIP:      net.IP{},
		RemotePort:    int(0),
		State:         netstat.TCPState(0),
		TransmitQueue: uint64(0),
		ReceiveQueue:  uint64(0),
		Protocol:      (*netstat.Protocol)(nil),
	}
	_ = netstat.Connection{
		"", []string{}, int(0), "", uint64(0), net.IP{}, int(0), net.IP{}, int(0), netstat.TCPUnknown, uint64(0), uint64(0), netstat.TCP,
	}

	_ int                          = int(netstat.TCPListen)
	_ interface{ String() string } = netstat.TCPListen
)

// The states of the v1 API are constants.
const (
	_ netstat.TCPState = netstat.TCPUnknown
	_ netstat.TCPState = netstat.TCPEstablished
	_ netstat.TCPState = netstat.TCPSynSent
	_ netstat.TCPState = netstat.TCPSynRecv
	_ netstat.TCPState = netstat.TCPFinWait1
	_ netstat.TCPState = netstat.TCPFinWait2
	_ netstat.TCPState = netstat.TCPTimeWait
	_ netstat.TCPState = netstat.TCPClose
	_ netstat.TCPState = netstat.TCPCloseWait
	_ netstat.TCPState = netstat.TCPLastAck
	_ netstat.TCPState = netstat.TCPListen
	_ netstat.TCPState = netstat.TCPClosing
	_ netstat.TCPState = netstat.TCPNewSynRecv
)

func TestConnectionUser(t *testing.T) {
	current, err := user.Current()
	require.NoError(t, err)
	got, err := (&netstat.Connection{UserID: current.Uid}).User()
	require.NoError(t, err)
	require.Equal(t, current.Username, got.Username)
}

func TestConnectionUserUnknown(t *testing.T) {
	uid := 2123456789
	for {
		if _, err := user.LookupId(strconv.Itoa(uid)); err != nil {
			break
		}
		uid-- // this machine has that user
	}
	_, err := (&netstat.Connection{UserID: strconv.Itoa(uid)}).User()
	require.Equal(t, user.UnknownUserIdError(uid), err)
}
