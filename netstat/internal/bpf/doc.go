// Package bpf holds the BPF programs of package netstat, as source and as objects that the Go programs carry.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -go-package bpf Owners owners.c -- -O2 -Wall -Wextra -Werror
