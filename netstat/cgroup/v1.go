package cgroup

import "bytes"

// HasV1 reports whether the content of a /proc/<pid>/cgroup has cgroups v1.
func HasV1(content []byte) bool { return bytes.Count(content, []byte("\n")) > 1 }
