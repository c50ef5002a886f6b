//go:build linux && !race

package procnetstat

const (
	underRaceDetector = false
	memoryName        = "resident memory, KiB"
	memorySpare       = 8 << 10
)
