package procnetstat

import (
	"os"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

func TestMain(m *testing.M) {
	if asked, isReader := os.LookupEnv(readerEnv); isReader {
		os.Exit(read(asked))
	}
	if conf := os.Getenv(observerEnv); conf != "" {
		runObserver(conf)
		return
	}
	testnet.Main(m)
}
