//go:build ignore

// owners.c is an iterator over the descriptors of all processes (iter/task_file, Linux 5.8) that writes which of them are
// sockets (bpf_sock_from_file, Linux 5.11). What it writes is decoded in owners.go:
//
//	a process:  u64 0, u64 start_boottime, u32 tgid, u32 euid, char comm[16]
//	and then each of its sockets:  u64 inode number, which is never 0
//
// It loads nothing but what the verifier lets it load directly, as bpf_probe_read_kernel is not there on a kernel in
// lockdown. The structures have only the members that are used: where these are is found out when it is loaded (CO-RE).

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define CORE __attribute__((preserve_access_index))

#define TASK_COMM_LEN 16

struct inode {
	unsigned long i_ino;
} CORE;

struct file {
	struct inode *f_inode;
} CORE;

typedef struct {
	u32 val;
} CORE kuid_t;

struct cred {
	kuid_t euid;
} CORE;

struct task_struct {
	int tgid;
	struct task_struct *group_leader;
	const struct cred *real_cred;
	u64 start_boottime;
	char comm[TASK_COMM_LEN];
} CORE;

struct seq_file;
struct socket;

struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
} CORE;

// The context of the program, whose members are 8 bytes apart.
struct task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u64 fd;
	struct file *file;
};

// include/uapi/linux/bpf.h
static long (*const bpf_seq_write)(struct seq_file *, const void *, u32) = (void *)127;
static struct socket *(*const bpf_sock_from_file)(struct file *) = (void *)162;

struct process {
	u64 mark;
	u64 start_boottime;
	u32 tgid;
	u32 euid; // as /proc/<pid>/status shows it: of the main thread, by its real_cred (task_state, fs/proc/array.c)
	u8 comm[TASK_COMM_LEN];
};

// The object has BTF of the types of its variables only, and bpf2go makes the Go type from that.
const struct process *btf_process __attribute__((unused));

// The process that was written last, and the iteration in which it was. Where the buffer has no room for what the program
// writes, the kernel drops all of it and calls the program again with the same descriptor.
u64 session;
u32 written;

SEC("iter/task_file")
int owners(struct task_file *ctx)
{
	struct file *file = ctx->file;
	struct task_struct *task = ctx->task;
	struct seq_file *seq = ctx->meta->seq;
	u64 inode;
	u32 tgid;

	if (!file || !task || !bpf_sock_from_file(file))
		return 0;
	inode = file->f_inode->i_ino;
	tgid = task->tgid;
	if (session != ctx->meta->session_id || written != tgid) {
		struct task_struct *leader = task->group_leader;
		const struct cred *cred = leader->real_cred;
		struct process process = {
			.start_boottime = leader->start_boottime,
			.tgid = tgid,
		};
		// Every task has credentials. A verifier that knows which pointers are under RCU, on a kernel whose BTF says it,
		// wants the check.
		if (!cred)
			return 0;
		process.euid = cred->euid.val;
#pragma unroll
		for (int i = 0; i < TASK_COMM_LEN; i++)
			process.comm[i] = leader->comm[i];
		if (bpf_seq_write(seq, &process, sizeof(process)))
			return 0;
		if (bpf_seq_write(seq, &inode, sizeof(inode)))
			return 0;
		session = ctx->meta->session_id;
		written = tgid;
		return 0;
	}
	bpf_seq_write(seq, &inode, sizeof(inode));
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
