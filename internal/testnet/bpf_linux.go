package testnet

import (
	"fmt"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
)

// RequireBPF skips the test, or fails it in CI, unless BPF programs can look at the processes of this machine here: the kernel
// is Linux 5.11 and has BTF, this thread has CAP_BPF and CAP_PERFMON, and its process is in the initial PID namespace.
func RequireBPF(tb testing.TB) {
	tb.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task_file", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		SkipOrFail(tb, fmt.Sprintf("a BPF iterator over descriptors: %v", err))
	}
	_ = program.Close()
	const linux5_11 = 5<<16 | 11<<8
	if version, err := features.LinuxVersionCode(); err != nil {
		tb.Fatal(err)
	} else if version < linux5_11 {
		SkipOrFail(tb, "finding sockets by a BPF program takes Linux 5.11")
	}
	const initial = "pid:[4026531836]" // PROC_PID_INIT_INO (include/linux/proc_ns.h)
	if namespace, err := os.Readlink("/proc/self/ns/pid"); err != nil {
		tb.Fatal(err)
	} else if namespace != initial {
		SkipOrFail(tb, "this is not the initial PID namespace, whose processes BPF programs see: "+namespace)
	}
}
