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

// sizeofOwner is the size of the record that the iterator writes for each socket: u64 inode, u32 process id, u32 zero.
const sizeofOwner = 16

// startBPFIterator measures a BPF iterator over the open files of all processes.
func startBPFIterator(task) (gather, error) {
	iterator, err := openIterator()
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, bufferSize)
	return measureInProcess(func() (sockets int, err error) {
		n, err := runIterator(iterator, buffer)
		return n / sizeofOwner, err
	}), nil
}

// runIterator runs the iterator once. It returns the number of bytes that the iterator wrote.
func runIterator(iterator *link.Iter, buffer []byte) (bytes int, err error) {
	r, err := iterator.Open()
	if err != nil {
		return 0, fmt.Errorf("running the BPF iterator: %w", err)
	}
	defer r.Close()
	for {
		n, err := r.Read(buffer)
		bytes += n
		if errors.Is(err, io.EOF) {
			return bytes, nil
		}
		if err != nil {
			return 0, fmt.Errorf("reading from the BPF iterator: %w", err)
		}
	}
}

// openIterator loads the iterator. It returns an unavailable error when the kernel or the privileges rule BPF out.
func openIterator() (*link.Iter, error) {
	iterator, err := loadIterator()
	for _, cause := range []error{fs.ErrPermission, fs.ErrNotExist, ebpf.ErrNotSupported, btf.ErrNotFound} {
		if errors.Is(err, cause) {
			return nil, unavailable(fmt.Errorf("BPF iterator: %w", err))
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

// iteratorProgram returns the instructions of this program, with the field offsets of the running kernel:
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
		asm.LoadMem(task, ctx, o.member("bpf_iter__task_file", "task"), asm.DWord),
		asm.JEq.Imm(task, 0, "exit"),
		asm.LoadMem(file, ctx, o.member("bpf_iter__task_file", "file"), asm.DWord),
		asm.JEq.Imm(file, 0, "exit"),
		asm.Mov.Reg(asm.R1, file),
		asm.FnSockFromFile.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),

		asm.LoadMem(asm.R1, file, o.member("file", "f_inode"), asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, o.member("inode", "i_ino"), asm.DWord),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, task, o.member("task_struct", "tgid"), asm.Word),
		asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),

		asm.LoadMem(asm.R1, ctx, o.member("bpf_iter__task_file", "meta"), asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, o.member("bpf_iter_meta", "seq"), asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -sizeofOwner),
		asm.Mov.Imm(asm.R3, sizeofOwner),
		asm.FnSeqWrite.Call(),

		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
		asm.Return(),
	}
	return program, o.err
}

// offsets looks up the offsets of fields, and keeps the first error.
type offsets struct {
	kernel *btf.Spec
	err    error
}

func (o *offsets) member(name, field string) int16 {
	var in *btf.Struct
	err := o.kernel.TypeByName(name, &in)
	if err == nil {
		if at, found := findMember(in.Members, field); found {
			return int16(at)
		}
		err = fmt.Errorf("no field %s: %w", field, btf.ErrNotFound)
	}
	if o.err == nil {
		o.err = fmt.Errorf("looking up struct %s in the kernel's BTF: %w", name, err)
	}
	return 0
}

// findMember returns the offset of a field. It searches anonymous structs and unions too.
func findMember(members []btf.Member, field string) (offset uint32, found bool) {
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
		if offset, found := findMember(inner, field); found {
			return m.Offset.Bytes() + offset, true
		}
	}
	return 0, false
}
