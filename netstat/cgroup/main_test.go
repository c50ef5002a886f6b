package cgroup

import (
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// TestMain runs the tests, or a helper process of testnet.
func TestMain(m *testing.M) { testnet.Main(m) }
