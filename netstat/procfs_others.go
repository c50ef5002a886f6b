//go:build !linux

package netstat

func isProcfs(string) bool { return false }
