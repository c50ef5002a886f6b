package procnetstat

import (
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }
