package sockdiag

import (
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// TestMain can be a process of testnet's in place of the tests.
func TestMain(m *testing.M) { testnet.Main(m) }
