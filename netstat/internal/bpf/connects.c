//go:build ignore

// connects.c keeps who began a TCP connection, by the cookie of its socket. The kernel puts a socket in SYN_SENT in the process
// that calls connect(2), before the first packet is sent; with TCP Fast Open too, whose call may be sendto(2). A thread of
// io_uring counts as the process. What is kept is read from the map in netstat/connects_bpf_linux.go. It needs
// bpf_get_socket_cookie, which tracing programs have since Linux 5.12, and which gives a socket a cookie if it has none.
//
// A socket that connects once more replaces what was kept of it, and one that is accepted never is in SYN_SENT. Of MPTCP the
// connections that it is made of are kept, as sock_diag has only these among those of TCP: the first as of the process; a
// further one is begun by a worker of the kernel. Whose connection that is is not known, so that nothing is kept of what the
// kernel's threads begin.
//
// As owners.c, it loads nothing but what the verifier lets it load directly, and its structures have only the members that
// are used.

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
	char comm[TASK_COMM_LEN];
	u16 port; // in host order
	u16 pad[3];
};

struct slot {
	u64 cookie; // 0: what follows is none, or is being written
	struct connect connect;
};

// The slot of a socket is told by the lowest bits of its cookie. Cookies are given out one after the other, so that what is kept is
// replaced when about as many further ones have been. The array is mapped into memory by who reads it: a system call for each
// socket would cost more than all else that is done with it.
#define SLOTS 65536
struct {
	int (*type)[BPF_MAP_TYPE_ARRAY];
	int (*max_entries)[SLOTS];
	int (*map_flags)[BPF_F_MMAPABLE];
	u32 *key;
	struct slot *value;
} begun SEC(".maps");

SEC("tp_btf/inet_sock_set_state")
int connects(struct inet_sock_set_state *ctx)
{
	struct sock *sk = ctx->sk;
	struct task_struct *task, *leader;
	struct slot *slot;
	u64 cookie;
	u32 index;

	if ((int)ctx->newstate != TCP_SYN_SENT || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	task = bpf_get_current_task_btf();
	if (task->flags & PF_KTHREAD)
		return 0;
	leader = task->group_leader;
	cookie = bpf_get_socket_cookie(sk);
	index = cookie % SLOTS;
	slot = bpf_map_lookup_elem(&begun, &index);
	if (!slot)
		return 0;
	// An exchange is a full memory barrier.
	__sync_lock_test_and_set(&slot->cookie, 0);
	slot->connect.cgroup_id = bpf_get_current_cgroup_id();
	slot->connect.start_boottime = leader->start_boottime;
	slot->connect.tgid = task->tgid;
	slot->connect.euid = task->cred->euid.val;
	slot->connect.port = __builtin_bswap16(sk->__sk_common.skc_dport);
#pragma unroll
	for (int i = 0; i < TASK_COMM_LEN; i++)
		slot->connect.comm[i] = leader->comm[i];
	__sync_lock_test_and_set(&slot->cookie, cookie);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
