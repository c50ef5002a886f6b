//go:build !linux || !(amd64 || arm64)

package netstat

func newConnects(string) (connectRecorder, error) {
	return nil, errNoBPF
}
