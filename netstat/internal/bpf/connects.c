//go:build ignore

// connects.c records attempts to connect by TCP, by the cookie of the socket: the process that makes it, when it is established,
// and how it ends. connects.go and ends.go read what it writes. The kernel puts a socket in SYN_SENT in the process that calls
// connect(2), before it chooses a local port and before it sends the first packet; with TCP Fast Open too, whose call may be
// sendto(2). A thread of io_uring counts as the process. The program needs bpf_get_socket_cookie, which tracing programs have
// since Linux 5.12, and which gives a socket a cookie if it has none. On arm64 atomic operations need Linux 5.18.
//
// A socket that connects again replaces its record, and one that is accepted never is in SYN_SENT. Of an MPTCP connection the
// subflows are recorded, as sock_diag has only these among the sockets of TCP. The process initiates the first one. A worker
// of the kernel initiates a further one, for a process that is not known: the attempts of kernel threads have no process.
//
// An attempt that fails, and a connection that the peer resets or that times out, is written to the ring buffer "ends" when it
// happens. The kernel reports a destroyed socket only when its process closes it, and a failed blocking connect(2) has cleared
// its addresses and counters by then (tcp_disconnect, net/ipv4/tcp.c).
//
// As owners.c, it loads nothing but what the verifier lets it load directly, and its structures have only the members that
// are used.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define CORE __attribute__((preserve_access_index))

#define TASK_COMM_LEN 16
#define AF_INET6 10
#define SEND_SHUTDOWN 2 // include/net/sock.h
#define SHUTDOWN_MASK 3
#define ECONNRESET 104
#define IPPROTO_TCP 6
#define PF_KTHREAD 0x00200000 // include/linux/sched.h

// include/net/tcp_states.h
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE 7
#define TCP_LISTEN 10

struct in6_addr {
	union {
		u32 u6_addr32[4];
	} in6_u;
} CORE;

struct ns_common {
	u32 inum;
} CORE;

struct net {
	struct ns_common ns;
} CORE;

typedef struct {
	struct net *net;
} CORE possible_net_t;

typedef struct {
	u64 counter;
} CORE atomic64_t;

struct sock_common {
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	u16 skc_dport; // in network order
	u16 skc_family;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
} CORE;

// include/linux/errqueue.h; in sk_buff.cb
#define SO_EE_ORIGIN_ICMP 2
#define SO_EE_ORIGIN_ICMP6 3
struct sock_extended_err {
	u32 ee_errno;
	u8 ee_origin;
} CORE;

struct sock_exterr_skb {
	struct sock_extended_err ee;
} CORE;

struct sk_buff {
	char cb[48];
} CORE;

struct sk_buff_head {
	struct sk_buff *prev; // the newest
	u32 qlen;
} CORE;

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_error_queue;
	int sk_err;
	int sk_err_soft;
	u8 sk_shutdown;
	u16 sk_protocol;
} CORE;

struct inet_sock {
	u16 inet_sport; // in network order
} CORE;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} CORE;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	u32 segs_out;
	u32 segs_in;
	u32 total_retrans;
} CORE;

typedef struct {
	u32 val;
} CORE kuid_t;

struct cred {
	kuid_t euid;
} CORE;

struct task_struct {
	u32 flags;
	int tgid;
	struct task_struct *group_leader;
	const struct cred *cred;
	u64 start_boottime;
	char comm[TASK_COMM_LEN];
} CORE;

// The arguments of the tracepoint, include/trace/events/sock.h, whose members are 8 bytes apart.
struct inet_sock_set_state {
	struct sock *sk;
	u64 oldstate;
	u64 newstate;
};

// include/uapi/linux/bpf.h
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_F_MMAPABLE (1 << 10)
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
#define BPF_RB_AVAIL_DATA 0
static void *(*const bpf_map_lookup_elem)(void *, const void *) = (void *)1;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*const bpf_get_socket_cookie)(struct sock *) = (void *)46;
static u64 (*const bpf_get_current_cgroup_id)(void) = (void *)80;
static void *(*const bpf_ringbuf_reserve)(void *, u64, u64) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *, u64) = (void *)132;
static u64 (*const bpf_ringbuf_query)(void *, u64) = (void *)134;
static struct tcp_sock *(*const bpf_skc_to_tcp_sock)(struct sock *) = (void *)137;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;

// initiator is the process of an attempt; tgid 0: a kernel thread, or not known.
struct initiator {
	u64 cgroup_id;
	u64 start_boottime;
	u32 tgid;
	u32 euid;
	u8 comm[TASK_COMM_LEN];
};

// connect is an attempt. Of a socket that connects again the kernel begins the counters anew: it has disconnected it after the attempt
// that failed (__inet_stream_connect, net/ipv4/af_inet.c).
struct connect {
	struct initiator by;
	// When it began, by CLOCK_MONOTONIC, modulo 2^32; once it is established the time that this took, at least 1.
	u32 us;
	u16 port; // of the peer, in host order
	u8 state; // ESTABLISHED; before the length of the error queue when it began, at most ESTABLISHED - 1
	u8 syn_retrans; // until it was established, at most 255
};

#define ESTABLISHED 255

// The version of a record is odd while the record is written, and another one each time. A record is a cache line.
struct record {
	u64 version;
	u64 cookie;
	struct connect connect;
};

// end is an attempt that failed, or an established connection that ended by an error.
struct end {
	u64 cookie;
	struct initiator by;
	u32 local[4], remote[4]; // in network order; an IPv4 address of a socket with AF_INET is the first
	u32 number; // of the attempt; 0: not recorded
	u32 netns; // inode number
	u32 device; // that the socket is bound to; 0: none
	u32 connect_us; // until the attempt was established or failed; 0: not known
	u32 syn_retrans; // until then
	u32 segs_out; // of a failed attempt
	u32 segs_in;
	u16 family;
	u16 local_port, remote_port; // in host order
	u16 error; // sk_err
	u16 soft_error; // that ICMP reported last: sk_err_soft, or of a failed attempt that in the error queue
	u8 state; // that it was in
	u8 no_port; // a failed attempt got no local port
};

// The records are those of the last RECORDS connections, in the order in which they begin: that of the connection with the
// number n is records[n % RECORDS].
//
// The index has the numbers by cookie. Cookies do not come in order: each CPU has a block of 4096 of its own
// (gen_cookie_next, include/linux/cookie.h), and a CPU with little to do uses an old block for long. Sockets that do not
// connect get cookies, too. So blocks are spread by a hash, while neighbours stay neighbours, as one is mostly looked up after
// the other; and an entry replaces the oldest of its bucket. With RECORDS entries the buckets are filled to a quarter on
// average, so that few have more of them than they have room for. A bucket is a cache line.
//
// Both maps are read in memory: a system call for each socket would cost more than all else that is done with it.
#define RECORDS 65536
#define BUCKETS 32768
#define BUCKET_BITS 15
#define BLOCK_BITS 12
#define WAYS 8

struct bucket {
	u64 entries[WAYS]; // the lower half of the cookie, and the lower half of the number; 0: none
};

struct {
	int (*type)[BPF_MAP_TYPE_ARRAY];
	int (*max_entries)[RECORDS];
	int (*map_flags)[BPF_F_MMAPABLE];
	u32 *key;
	struct record *value;
} records SEC(".maps");

struct {
	int (*type)[BPF_MAP_TYPE_ARRAY];
	int (*max_entries)[BUCKETS];
	int (*map_flags)[BPF_F_MMAPABLE];
	u32 *key;
	struct bucket *value;
} buckets SEC(".maps");

// With another value than 0, the inode number of the only network namespace whose sockets are recorded: others would take room.
const volatile u32 only_netns = 0;

// ends are read soon after a quarter is full, and at every scan (see ends.go).
#define ENDS (1 << 21) // bytes

struct {
	int (*type)[BPF_MAP_TYPE_RINGBUF];
	int (*max_entries)[ENDS];
} ends SEC(".maps");

struct {
	int (*type)[BPF_MAP_TYPE_ARRAY];
	int (*max_entries)[1];
	int (*map_flags)[BPF_F_MMAPABLE];
	u32 *key;
	u64 *value;
} lost SEC(".maps"); // the number of ends for which there was no room

u64 begun; // attempts so far

// The object has BTF of the types of its variables only, and bpf2go makes the Go type from that.
const struct end *btf_end __attribute__((unused));

static __attribute__((always_inline)) u32 bucket_of(u64 cookie)
{
	const u64 spread = 0x9e3779b97f4a7c15; // 2^64 divided by the golden ratio

	return (u32)((cookie >> BLOCK_BITS) * spread >> (64 - BUCKET_BITS)) + (u32)cookie & (BUCKETS - 1);
}

// enter sets the number of the attempt of the socket in the index.
static __attribute__((always_inline)) void enter(u64 cookie, u32 number)
{
	u32 at = bucket_of(cookie), oldest = 0, age = 0;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &at);

	if (!bucket)
		return;
#pragma unroll
	for (u32 i = 0; i < WAYS; i++) {
		u64 entry = bucket->entries[i];
		u32 its = entry >> 32 == (u32)cookie ? ~0U : number - (u32)entry; // a socket has one entry

		if (its >= age) {
			age = its;
			oldest = i;
		}
	}
	__sync_lock_test_and_set(&bucket->entries[oldest], cookie << 32 | number);
}

// number_of returns the number of the last attempt of the socket; 0: not in the index.
static __attribute__((always_inline)) u32 number_of(u64 cookie)
{
	u32 at = bucket_of(cookie), number = 0;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &at);

	if (!bucket)
		return 0;
#pragma unroll
	for (u32 i = 0; i < WAYS; i++) {
		u64 entry = bucket->entries[i];

		if (entry >> 32 == (u32)cookie)
			number = entry;
	}
	return number;
}

// begin_write makes the version of the record odd. It returns false if another program writes it.
//
// Whoever reads takes a record that had the same even version before and after. So nothing of the record may be seen to change
// before the version does: the exchange of the cookie is the full barrier between the two, as a compare-and-exchange alone may be
// seen after what follows it (on arm64). And the even version may not be seen before the whole record: an exchange is a full
// barrier, too.
//
// An odd version is that of a program that was interrupted for as long as RECORDS attempts take. It has the record for itself,
// and this attempt is not recorded.
static __attribute__((always_inline)) int begin_write(struct record *record, u64 *version)
{
	*version = record->version;
	return !(*version & 1) && __sync_val_compare_and_swap(&record->version, *version, *version + 1) == *version;
}

static __attribute__((always_inline)) void end_write(struct record *record, u64 version)
{
	__sync_lock_test_and_set(&record->version, version + 2);
}

// find finds the record of the socket, and the number of its attempt.
static __attribute__((always_inline)) struct record *find(u64 cookie, u32 *number)
{
	struct record *record;
	u32 index;

	*number = number_of(cookie);
	if (!*number)
		return 0;
	index = *number % RECORDS;
	record = bpf_map_lookup_elem(&records, &index);
	return record && record->cookie == cookie ? record : 0;
}

static __attribute__((always_inline)) u32 now_us(void) { return bpf_ktime_get_ns() / 1000; }

// took returns the time since the attempt began, never 0.
static __attribute__((always_inline)) u32 took(u32 begun)
{
	u32 us = now_us() - begun;

	return us ? us : 1;
}

static __attribute__((always_inline)) void begin(struct sock *sk)
{
	struct task_struct *task = bpf_get_current_task_btf(), *leader = task->group_leader;
	const struct cred *cred = task->cred;
	struct record *record;
	struct connect *connect;
	u64 cookie, version;
	u32 number, index;

	if (!cred) // see owners.c
		return;
	cookie = bpf_get_socket_cookie(sk);
	number = __sync_fetch_and_add(&begun, 1) + 1;
	index = number % RECORDS;
	record = bpf_map_lookup_elem(&records, &index);
	if (!record || !begin_write(record, &version))
		return;
	__sync_lock_test_and_set(&record->cookie, cookie);
	connect = &record->connect;
	if (task->flags & PF_KTHREAD) {
		__builtin_memset(&connect->by, 0, sizeof(connect->by));
	} else {
		connect->by.cgroup_id = bpf_get_current_cgroup_id();
		connect->by.start_boottime = leader->start_boottime;
		connect->by.tgid = task->tgid;
		connect->by.euid = cred->euid.val;
#pragma unroll
		for (int i = 0; i < TASK_COMM_LEN; i++)
			connect->by.comm[i] = leader->comm[i];
	}
	connect->us = now_us();
	connect->port = __builtin_bswap16(sk->__sk_common.skc_dport);
	connect->state = sk->sk_error_queue.qlen < ESTABLISHED ? sk->sk_error_queue.qlen : ESTABLISHED - 1;
	connect->syn_retrans = 0;
	end_write(record, version);
	enter(cookie, number);
}

static __attribute__((always_inline)) void established(struct sock *sk, u64 cookie)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct record *record;
	u64 version;
	u32 number, retrans;

	if (!tp)
		return;
	record = find(cookie, &number);
	if (!record || !begin_write(record, &version))
		return;
	if (__sync_lock_test_and_set(&record->cookie, record->cookie) == cookie) { // else replaced meanwhile
		retrans = tp->total_retrans;
		record->connect.us = took(record->connect.us);
		record->connect.state = ESTABLISHED;
		record->connect.syn_retrans = retrans < 255 ? retrans : 255;
	}
	end_write(record, version);
}

static __attribute__((always_inline)) void set_addresses(struct end *end, struct sock *sk, struct tcp_sock *tp)
{
	end->netns = sk->__sk_common.skc_net.net->ns.inum;
	end->device = sk->__sk_common.skc_bound_dev_if;
	end->family = sk->__sk_common.skc_family;
	// Without CONFIG_IPV6 there is no such field.
	if (end->family == AF_INET6 && __builtin_preserve_field_info(sk->__sk_common.skc_v6_daddr, 2 /* exists */)) {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			end->local[i] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[i];
			end->remote[i] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[i];
		}
	} else {
		end->local[0] = sk->__sk_common.skc_rcv_saddr;
		end->remote[0] = sk->__sk_common.skc_daddr;
#pragma unroll
		for (int i = 1; i < 4; i++) {
			end->local[i] = 0;
			end->remote[i] = 0;
		}
	}
	end->local_port = __builtin_bswap16(tp->inet_conn.icsk_inet.inet_sport);
	end->remote_port = __builtin_bswap16(sk->__sk_common.skc_dport);
}

// queued_error returns the error that ICMP has reported since the error queue had the length. If the report came while connect(2) held
// the socket, an attempt over IPv4 goes on, but poll(2) and SO_ERROR tell the process, which clears sk_err_soft (tcp_v4_err,
// net/ipv4/tcp_ipv4.c; sk_getsockopt, net/core/sock.c).
static __attribute__((always_inline)) u16 queued_error(struct sock *sk, u32 before)
{
	u32 at = __builtin_preserve_field_info(((struct sock_exterr_skb *)0)->ee.ee_errno, 0 /* byte offset */);
	u32 origin = __builtin_preserve_field_info(((struct sock_exterr_skb *)0)->ee.ee_origin, 0);
	struct sk_buff *newest = sk->sk_error_queue.prev;

	if (sk->sk_error_queue.qlen <= before)
		return 0;
	origin = *(u8 *)(newest->cb + origin);
	if (origin != SO_EE_ORIGIN_ICMP && origin != SO_EE_ORIGIN_ICMP6)
		return 0;
	return *(u8 *)(newest->cb + at); // an errno is less than 256
}

// ended writes the end of a failed attempt or of an established connection.
static __attribute__((always_inline)) void ended(struct sock *sk, u64 cookie, u8 state, int failed)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct record *record;
	struct end *end;
	u64 version;
	u32 number, first = 0;

	if (!tp)
		return;
	end = bpf_ringbuf_reserve(&ends, sizeof(*end), 0);
	if (!end) {
		u64 *n = bpf_map_lookup_elem(&lost, &first);

		if (n)
			__sync_fetch_and_add(n, 1);
		return;
	}
	end->cookie = cookie;
	set_addresses(end, sk, tp);
	end->error = sk->sk_err;
	end->soft_error = sk->sk_err_soft;
	end->state = state;
	// The kernel has sent nothing, and the process has not closed the socket. inet_sport can be that of an earlier attempt.
	end->no_port = failed && !tp->segs_out && !(sk->sk_shutdown & SEND_SHUTDOWN);
	end->segs_out = tp->segs_out;
	end->segs_in = tp->segs_in;
	end->syn_retrans = failed ? tp->total_retrans : 0;
	end->connect_us = 0;
	end->number = 0;
	record = find(cookie, &number);
	if (record) {
		// The socket is locked: only an attempt of another one can replace the record. An addition is a full barrier, too.
		version = __sync_fetch_and_add(&record->version, 0);
		end->by = record->connect.by;
		if (failed) {
			end->connect_us = took(record->connect.us);
			if (!end->soft_error)
				end->soft_error = queued_error(sk, record->connect.state);
		} else if (record->connect.state == ESTABLISHED) {
			end->connect_us = record->connect.us;
			end->syn_retrans = record->connect.syn_retrans;
		}
		if (!(version & 1) && __sync_fetch_and_add(&record->version, 0) == version)
			end->number = number;
	}
	if (!end->number) {
		end->connect_us = 0;
		__builtin_memset(&end->by, 0, sizeof(end->by));
	}
	bpf_ringbuf_submit(end, bpf_ringbuf_query(&ends, BPF_RB_AVAIL_DATA) < ENDS / 4 ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
}

static __attribute__((always_inline)) int is_recorded(struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP && (!only_netns || sk->__sk_common.skc_net.net->ns.inum == only_netns);
}

// The kernel does not run a program for an event that interrupts the same program on the same CPU (__bpf_trace_run,
// kernel/trace/bpf_trace.c). Timers interrupt connect(2), and many attempts can time out in one interrupt: so there is a program for
// what begins, which only processes do, and one for what ends. Some ends are not seen all the same: see countMissed in ../../connects.go.

SEC("tp_btf/inet_sock_set_state")
int begins(struct inet_sock_set_state *ctx)
{
	if ((int)ctx->newstate == TCP_SYN_SENT && is_recorded(ctx->sk))
		begin(ctx->sk);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int changes(struct inet_sock_set_state *ctx)
{
	struct sock *sk = ctx->sk;
	int before = ctx->oldstate, now = ctx->newstate;
	u64 cookie;

	if ((now != TCP_ESTABLISHED && now != TCP_CLOSE) || !is_recorded(sk))
		return 0;
	// Two that connect to each other, or one to itself, go through SYN_RECV, as an accepted one does. That has no cookie yet, unless a
	// dump has seen it, and no record.
	cookie = sk->__sk_common.skc_cookie.counter;
	if (now == TCP_ESTABLISHED) {
		if (cookie)
			established(sk, cookie);
	} else if (before == TCP_SYN_SENT) {
		ended(sk, cookie ? cookie : bpf_get_socket_cookie(sk), before, 1);
	} else if (before == TCP_SYN_RECV) {
		if (cookie && number_of(cookie))
			ended(sk, cookie, before, 1);
	} else if (sk->sk_err == ECONNRESET && sk->sk_shutdown == SHUTDOWN_MASK &&
		   (before == TCP_FIN_WAIT1 || before == TCP_FIN_WAIT2)) {
		// The process has closed the socket, and this end resets the connection if the peer sends more (tcp_rcv_state_process,
		// net/ipv4/tcp_input.c), which looks like a reset of the peer.
	} else if (sk->sk_err && before != TCP_LISTEN && before != TCP_CLOSE) {
		ended(sk, bpf_get_socket_cookie(sk), before, 0);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
