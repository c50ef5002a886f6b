// Package bpf holds the BPF programs of package netstat: the source in C, and the objects that Go programs carry and load.
// make generate makes these from the source.
package bpf
