//go:build linux && !race

package procnetstat

const underRaceDetector = false
