package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// sizeofOwner is the size of what the iterator writes for a socket: u64 inode, u32 process id, u32 zero.
const sizeofOwner = 16

// startBPF has the kernel go through the files of all processes.
func startBPF(task) (gather, error) {
	iterator, err := openIterator()
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, bufferSize)
	return inProcess(func() (sockets int, err error) {
		n, err := readAll(iterator, buffer)
		return n / sizeofOwner, err
	}), nil
}

// readAll has the iterator run once, and returns how many bytes it wrote.
func readAll(iterator *link.Iter, buffer []byte) (bytes int, err error) {
	in, err := iterator.Open()
	if err != nil {
		return 0, fmt.Errorf("running the BPF iterator: %w", err)
	}
	defer in.Close()
	for {
		n, err := in.Read(buffer)
		bytes += n
		if errors.Is(err, io.EOF) {
			return bytes, nil
		}
		if err != nil {
			return 0, fmt.Errorf("reading from the BPF iterator: %w", err)
		}
	}
}

// openIterator loads the program.
func openIterator() (*link.Iter, error) {
	iterator, err := loadIterator()
	for _, cause := range []error{fs.ErrPermission, fs.ErrNotExist, ebpf.ErrNotSupported, btf.ErrNotFound} {
		if errors.Is(err, cause) {
			return nil, unavailable(fmt.Errorf("no BPF iterator here: %w", err))
		}
	}
	return iterator, err
}

func loadIterator() (*link.Iter, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("loading the kernel's BTF: %w", err)
	}
	instructions, err := iteratorProgram(kernel)
	if err != nil {
		return nil, err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceIter,
		AttachTo:     "task_file",
		Instructions: instructions,
		License:      "Dual MIT/GPL",
	})
	if err != nil {
		return nil, fmt.Errorf("loading the BPF iterator: %w", err)
	}
	defer program.Close()
	iterator, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return nil, fmt.Errorf("attaching the BPF iterator: %w", err)
	}
	return iterator, nil
}

// iteratorProgram is, with the offsets of this kernel,
//
//	int each(struct bpf_iter__task_file *ctx)
//	{
//		struct { u64 inode; u32 tgid, zero; } owner = {};
//
//		if (!ctx->task || !ctx->file || !bpf_sock_from_file(ctx->file))
//			return 0;
//		owner.inode = ctx->file->f_inode->i_ino;
//		owner.tgid = ctx->task->tgid;
//		bpf_seq_write(ctx->meta->seq, &owner, sizeof(owner));
//		return 0;
//	}
func iteratorProgram(kernel *btf.Spec) (asm.Instructions, error) {
	o := offsets{kernel: kernel}
	const ctx, task, file = asm.R6, asm.R7, asm.R8
	program := asm.Instructions{
		asm.Mov.Reg(ctx, asm.R1),
		asm.LoadMem(task, ctx, o.of("bpf_iter__task_file", "task"), asm.DWord),
		asm.JEq.Imm(task, 0, "exit"),
		asm.LoadMem(file, ctx, o.of("bpf_iter__task_file", "file"), asm.DWord),
		asm.JEq.Imm(file, 0, "exit"),
		asm.Mov.Reg(asm.R1, file),
		asm.FnSockFromFile.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),

		asm.LoadMem(asm.R1, file, o.of("file", "f_inode"), asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, o.of("inode", "i_ino"), asm.DWord),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, task, o.of("task_struct", "tgid"), asm.Word),
		asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),

		asm.LoadMem(asm.R1, ctx, o.of("bpf_iter__task_file", "meta"), asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, o.of("bpf_iter_meta", "seq"), asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -sizeofOwner),
		asm.Mov.Imm(asm.R3, sizeofOwner),
		asm.FnSeqWrite.Call(),

		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
		asm.Return(),
	}
	return program, o.err
}

// offsets looks up where fields are, and keeps the first error.
type offsets struct {
	kernel *btf.Spec
	err    error
}

func (o *offsets) of(name, field string) int16 {
	var in *btf.Struct
	err := o.kernel.TypeByName(name, &in)
	if err == nil {
		if at, found := find(in.Members, field); found {
			return int16(at)
		}
		err = fmt.Errorf("it has no %s: %w", field, btf.ErrNotFound)
	}
	if o.err == nil {
		o.err = fmt.Errorf("looking up struct %s of this kernel: %w", name, err)
	}
	return 0
}

// find also looks into structs and unions without a name, the fields of which are those of the one around them.
func find(members []btf.Member, field string) (offset uint32, found bool) {
	for _, m := range members {
		if m.Name == field {
			return m.Offset.Bytes(), true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := m.Type.(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if at, found := find(inner, field); found {
			return m.Offset.Bytes() + at, true
		}
	}
	return 0, false
}
