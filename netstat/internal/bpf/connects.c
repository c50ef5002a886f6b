//go:build ignore

// connects.c records which process initiates a TCP connection, by the cookie of its socket. The kernel puts a socket in
// SYN_SENT in the process that calls connect(2), before the first packet is sent; with TCP Fast Open too, whose call may be
// sendto(2). A thread of io_uring counts as the process. connects.go reads the records from the maps. It needs
// bpf_get_socket_cookie, which tracing programs have since Linux 5.12, and which gives a socket a cookie if it has none.
//
// A socket that connects again replaces its record, and one that is accepted never is in SYN_SENT. Of an MPTCP connection the
// subflows are recorded, as sock_diag has only these among the sockets of TCP. The process initiates the first one. A worker
// of the kernel initiates a further one, for a process that is not known: what kernel threads initiate is not recorded.
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
#define TCP_SYN_SENT 2
#define IPPROTO_TCP 6
#define PF_KTHREAD 0x00200000 // include/linux/sched.h

struct sock_common {
	u16 skc_dport; // in network order
} CORE;

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
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
#define BPF_F_MMAPABLE (1 << 10)
static void *(*const bpf_map_lookup_elem)(void *, const void *) = (void *)1;
static u64 (*const bpf_get_socket_cookie)(struct sock *) = (void *)46;
static u64 (*const bpf_get_current_cgroup_id)(void) = (void *)80;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;

struct connect {
	u64 cgroup_id;
	u64 start_boottime;
	u32 tgid;
	u32 euid;
	u8 comm[TASK_COMM_LEN];
	u16 port; // in host order
	u16 pad[3];
};

// The version of a record is odd while the record is written, and another one each time.
struct record {
	u64 version;
	u64 cookie;
	struct connect connect;
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

u64 begun; // connections so far

// enter sets the number of the connection of the socket in the index.
static __attribute__((always_inline)) void enter(u64 cookie, u32 number)
{
	const u64 spread = 0x9e3779b97f4a7c15; // 2^64 divided by the golden ratio
	u32 at = ((cookie >> BLOCK_BITS) * spread >> (64 - BUCKET_BITS)) + cookie;
	u32 oldest = 0, age = 0;
	struct bucket *bucket;

	at %= BUCKETS;
	bucket = bpf_map_lookup_elem(&buckets, &at);
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

SEC("tp_btf/inet_sock_set_state")
int connects(struct inet_sock_set_state *ctx)
{
	struct sock *sk = ctx->sk;
	struct task_struct *task, *leader;
	const struct cred *cred;
	struct record *record;
	u64 cookie, number, version;
	u32 index;

	if ((int)ctx->newstate != TCP_SYN_SENT || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	task = bpf_get_current_task_btf();
	if (task->flags & PF_KTHREAD)
		return 0;
	leader = task->group_leader;
	cred = task->cred;
	if (!cred) // see owners.c
		return 0;
	cookie = bpf_get_socket_cookie(sk);
	number = __sync_fetch_and_add(&begun, 1) + 1;
	index = number % RECORDS;
	record = bpf_map_lookup_elem(&records, &index);
	if (!record)
		return 0;

	// Whoever reads takes a record that had the same even version before and after. So nothing of the record may be seen
	// to change before the version does: the exchange of the cookie is the full barrier between the two, as a
	// compare-and-exchange alone may be seen after what follows it (on arm64). And the even version may not be seen before
	// the whole record: an exchange is a full barrier, too.
	//
	// An odd version is that of a program that was interrupted for as long as RECORDS connections take. It has the record
	// for itself, and this connection is not recorded.
	version = record->version;
	if (version & 1 || __sync_val_compare_and_swap(&record->version, version, version + 1) != version)
		return 0;
	__sync_lock_test_and_set(&record->cookie, cookie);
	record->connect.cgroup_id = bpf_get_current_cgroup_id();
	record->connect.start_boottime = leader->start_boottime;
	record->connect.tgid = task->tgid;
	record->connect.euid = cred->euid.val;
	record->connect.port = __builtin_bswap16(sk->__sk_common.skc_dport);
#pragma unroll
	for (int i = 0; i < TASK_COMM_LEN; i++)
		record->connect.comm[i] = leader->comm[i];
	__sync_lock_test_and_set(&record->version, version + 2);
	enter(cookie, number);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
