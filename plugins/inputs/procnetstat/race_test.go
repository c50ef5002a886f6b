//go:build linux && race

package procnetstat

const (
	underRaceDetector = true
	memoryName        = "live heap, KiB"
	memorySpare       = 1 << 10
)
