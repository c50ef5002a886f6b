package testnet

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var (
	v4 = netip.MustParseAddrPort("0.0.0.0:0")
	v6 = netip.MustParseAddrPort("[::]:0")
)

func TestParseSS(t *testing.T) {
	for _, tt := range []struct {
		name string
		text string
		want []Row
	}{
		{
			name: "tcp4 with processes, memory and timers",
			text: `tcp   LISTEN     1      4                 0.0.0.0:49421            0.0.0.0:*     users:(("server",pid=18707,fd=17)) uid:65534 ino:45651 sk:cb cgroup:/system.slice/nginx.service <-> skmem:(r0,rb131072,t0,tb16384,f0,w0,o0,bl0,d9)
tcp   SYN-SENT   0      1               127.0.0.1:42356          127.0.0.1:47009 users:(("client",pid=18708,fd=20)) timer:(on,936ms,0) ino:45654 sk:ce cgroup:/ <-> skmem:(r0,rb131072,t0,tb16384,f3264,w832,o0,bl0,d0)
tcp   TIME-WAIT  0      0               127.0.0.1:45646          127.0.0.1:38179 timer:(timewait,59sec,0) ino:0 sk:d4            
tcp   LAST-ACK   1      1               127.0.0.1:38179          127.0.0.1:45714 timer:(on,164ms,0) ino:0 sk:e1 cgroup:/ ---     
`,
			want: []Row{
				{
					Netid: "tcp", State: "LISTEN", RecvQ: 1, SendQ: 4, Local: netip.MustParseAddrPort("0.0.0.0:49421"), Remote: v4,
					Inode: 45651, UID: 65534, Cookie: 0xcb, Cgroup: "/system.slice/nginx.service", Drops: 9,
					Processes: []RowProcess{{"server", 18707, 17}},
				}, {
					Netid: "tcp", State: "SYN_SENT", SendQ: 1, Local: netip.MustParseAddrPort("127.0.0.1:42356"),
					Remote: netip.MustParseAddrPort("127.0.0.1:47009"), Inode: 45654, Cookie: 0xce, Cgroup: "/",
					Processes: []RowProcess{{"client", 18708, 20}},
				}, {
					Netid: "tcp", State: "TIME_WAIT", Local: netip.MustParseAddrPort("127.0.0.1:45646"),
					Remote: netip.MustParseAddrPort("127.0.0.1:38179"), Cookie: 0xd4,
				}, {
					Netid: "tcp", State: "LAST_ACK", RecvQ: 1, SendQ: 1, Local: netip.MustParseAddrPort("127.0.0.1:38179"),
					Remote: netip.MustParseAddrPort("127.0.0.1:45714"), Cookie: 0xe1, Cgroup: "/",
				},
			},
		}, {
			name: "IPv6",
			text: `tcp   LISTEN     0      16                      *:39303                  *:*     ino:45682 sk:e6 cgroup:/ v6only:0 <->           
tcp   ESTAB      0      200    [::ffff:127.0.0.1]:41088 [::ffff:127.0.0.1]:39303 timer:(on,168ms,0) ino:45689 sk:ed cgroup:/ <-> 
udp   UNCONN     2304   0                    [::]:44693               [::]:*     ino:47552 sk:12e cgroup:/ v6only:1 <->
udp   UNCONN     0      0      [fe80::8010:1]%eth0:546                [::]:*     ino:3 sk:1 v6only:1 <->
`,
			want: []Row{
				{
					Netid: "tcp", State: "LISTEN", SendQ: 16, Local: netip.MustParseAddrPort("[::]:39303"), Remote: v6,
					Inode: 45682, Cookie: 0xe6, Cgroup: "/",
				}, {
					Netid: "tcp", State: "ESTABLISHED", SendQ: 200, Local: netip.MustParseAddrPort("[::ffff:127.0.0.1]:41088"),
					Remote: netip.MustParseAddrPort("[::ffff:127.0.0.1]:39303"), Inode: 45689, Cookie: 0xed, Cgroup: "/",
				}, {
					Netid: "udp", State: "CLOSE", RecvQ: 2304, Local: netip.MustParseAddrPort("[::]:44693"), Remote: v6,
					Inode: 47552, Cookie: 0x12e, Cgroup: "/",
				}, {
					Netid: "udp", State: "CLOSE", Local: netip.MustParseAddrPort("[fe80::8010:1]:546"), Remote: v6,
					Interface: "eth0", Inode: 3, Cookie: 1,
				},
			},
		}, {
			name: "one protocol only, and names with special characters",
			text: "LISTEN 0      5      *:34435 *:* users:((\"a\nb\",pid=10163,fd=3),(\"a\nb\",pid=10155,fd=5)) uid:65534 ino:87629 sk:146 cgroup:/ v6only:0 <->    \n" +
				"LISTEN 0      5      *:50211 *:* users:((\"q\",pid=1,fd=2\",pid=10190,fd=3)) uid:65534 ino:87675 sk:148 cgroup:/ v6only:0 <->\n" +
				"LISTEN 0      5      *:55929 *:* users:((\"x\xff ino:7\",pid=10176,fd=3)) uid:65534 ino:87652 sk:147 cgroup:/ v6only:0 <->\n" +
				"LISTEN 0      5      *:40335 *:* users:((\"\",pid=10216,fd=3)) uid:65534 ino:87724 sk:14a cgroup:/ v6only:0 <->\n",
			want: []Row{
				{
					State: "LISTEN", SendQ: 5, Local: netip.MustParseAddrPort("[::]:34435"), Remote: v6, Inode: 87629, UID: 65534,
					Cookie: 0x146, Cgroup: "/", Processes: []RowProcess{{"a\nb", 10163, 3}, {"a\nb", 10155, 5}},
				}, {
					State: "LISTEN", SendQ: 5, Local: netip.MustParseAddrPort("[::]:50211"), Remote: v6, Inode: 87675, UID: 65534,
					Cookie: 0x148, Cgroup: "/", Processes: []RowProcess{{`q",pid=1,fd=2`, 10190, 3}},
				}, {
					State: "LISTEN", SendQ: 5, Local: netip.MustParseAddrPort("[::]:55929"), Remote: v6, Inode: 87652, UID: 65534,
					Cookie: 0x147, Cgroup: "/", Processes: []RowProcess{{"x\xff ino:7", 10176, 3}},
				}, {
					State: "LISTEN", SendQ: 5, Local: netip.MustParseAddrPort("[::]:40335"), Remote: v6, Inode: 87724, UID: 65534,
					Cookie: 0x14a, Cgroup: "/", Processes: []RowProcess{{"", 10216, 3}},
				},
			},
		}, {
			name: "one state only",
			text: `0      1      127.0.0.1:42356 127.0.0.1:47009 ino:45654 sk:ce <->
`,
			want: []Row{{
				SendQ: 1, Local: netip.MustParseAddrPort("127.0.0.1:42356"), Remote: netip.MustParseAddrPort("127.0.0.1:47009"),
				Inode: 45654, Cookie: 0xce,
			}},
		}, {
			name: "other sockets",
			text: `nl    UNCONN 4352   0                                         4:19821                   *      sk=0 cb=0 groups=0x00000000	 skmem:(r4352,rb2097152,t0,tb65536,f0,w0,o0,bl0,d0)
raw   UNCONN 0      0                                   0.0.0.0:255              0.0.0.0:*                                           
u_str ESTAB  0      0             /tmp/testnet2907417008/stream 47591                  * 47590 users:(("testnet.test",pid=19815,fd=50)) <-> ino:9978774 dev:0/65024           
u_seq LISTEN 0      4      @testnet-testnet2907417008-seqpacket 47604                  * 0     <-> peers:                            
u_dgr ESTAB  0      0                                         * 47595                  * 47596 <->                                   
`,
			want: []Row{
				{Netid: "nl", State: "CLOSE", RecvQ: 4352},
				{Netid: "raw", State: "CLOSE", Local: netip.MustParseAddrPort("0.0.0.0:255"), Remote: v4},
				{
					Netid: "u_str", State: "ESTABLISHED", Path: "/tmp/testnet2907417008/stream", Inode: 47591, Peer: 47590,
					Processes: []RowProcess{{"testnet.test", 19815, 50}},
				},
				{Netid: "u_seq", State: "LISTEN", SendQ: 4, Path: "@testnet-testnet2907417008-seqpacket", Inode: 47604},
				{Netid: "u_dgr", State: "ESTABLISHED", Inode: 47595, Peer: 47596},
			},
		}, {
			name: "nothing",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := parseSS(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			var lines strings.Builder
			for i := range rows {
				lines.WriteString(rows[i].Line + "\n")
				rows[i].Line = ""
			}
			if !reflect.DeepEqual(rows, tt.want) {
				t.Errorf("rows\n%+v\nwant\n%+v", rows, tt.want)
			}
			if lines.String() != tt.text {
				t.Errorf("the lines of the rows are\n%s\nwant\n%s", lines.String(), tt.text)
			}
		})
	}
}

func TestParseSSErrors(t *testing.T) {
	for _, tt := range []struct {
		text, want string
	}{
		{"ss: bison bellows (while parsing filter): \"syntax error!\" Sorry.\n", "not a line of ss"},
		{"tcp ABSENT 0 0 127.0.0.1:1 127.0.0.1:2\n", `unknown state "ABSENT"`},
		{"tcp ESTAB 0 0 127.0.0.1:1\n", "no addresses"},
		{"u_str ESTAB 0 0 * 1 *\n", "no addresses"},
		{"tcp ESTAB 0 0 127.0.0.1:http 127.0.0.1:2\n", `port of address "127.0.0.1:http"`},
		{"tcp ESTAB 0 0 localhost:1 127.0.0.1:2\n", `ParseAddr("localhost")`},
		{"tcp ESTAB 0 0 127.0.0.1 127.0.0.1:2\n", `no port in address "127.0.0.1"`},
		{"tcp ESTAB 0 0 127.0.0.1:1 127.0.0.1:2 sk:12345678901234567\n", "value out of range"},
	} {
		rows, err := parseSS(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error %v, want %q", tt.text, err, tt.want)
		}
		if rows != nil {
			t.Errorf("%q: rows and an error: %+v", tt.text, rows)
		}
	}
}
