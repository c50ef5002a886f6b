//go:build !linux

package testnet

import (
	"os"
	"testing"
)

// Main runs the tests of a package: func TestMain(m *testing.M) { testnet.Main(m) }.
func Main(m *testing.M) {
	os.Exit(m.Run())
}
