package testnet

import (
	"fmt"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
)

// RequireBPF skips the test, or fails it in CI, unless BPF programs can iterate over the descriptors of all processes: this
// requires Linux 5.11 with BTF, CAP_BPF and CAP_PERFMON of this thread, and a process in the initial PID namespace.
func RequireBPF(tb testing.TB) {
	tb.Helper()
	SkipIfShort(tb)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task_file", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		SkipOrFail(tb, fmt.Sprintf("cannot load a BPF iterator over descriptors: %v", err))
	}
	_ = program.Close()
	const linux5_11 = 5<<16 | 11<<8
	if version, err := features.LinuxVersionCode(); err != nil {
		tb.Fatal(err)
	} else if version < linux5_11 {
		SkipOrFail(tb, "finding sockets with a BPF program requires Linux 5.11")
	}
	const initial = "pid:[4026531836]" // PROC_PID_INIT_INO (include/linux/proc_ns.h)
	if namespace, err := os.Readlink("/proc/self/ns/pid"); err != nil {
		tb.Fatal(err)
	} else if namespace != initial {
		SkipOrFail(tb, "BPF programs number processes as the initial PID namespace does, and this is another one: "+namespace)
	}
}
