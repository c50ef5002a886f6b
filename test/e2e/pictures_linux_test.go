//go:build pictures

package e2e

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// TestPictures takes the screenshots of the README into the directory PICTURES: pages of a real Prometheus that scrapes a real
// Telegraf, with a service that leaks connections and one that does not accept them. "make pictures" runs it; it checks nothing.
func TestPictures(t *testing.T) {
	testnet.Require(t, "prometheus", "chromium")
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		graph := startGraph(t, program)
		const (
			interval, steps  = time.Second, 150
			perStep, backlog = 2, 128 // connections to uploads a second, and its backlog
		)
		payments := testnet.Start(t, testnet.Process{Name: "payments"})
		orders := testnet.Start(t, testnet.Process{Name: "orders"})
		catalog := testnet.Start(t, testnet.Process{Name: "catalog"})
		uploads := testnet.Start(t, testnet.Process{Name: "uploads"})
		users := testnet.Start(t, testnet.Process{Name: "users"})

		paymentsListener, catalogListener := payments.Listen("tcp4", loopback, 100), catalog.Listen("tcp4", loopback, 100)
		uploadsListener := uploads.Listen("tcp4", loopback, backlog)
		users.Connect(catalogListener.Local, 40)
		catalog.Accept(catalogListener, 40)
		next := time.NewTicker(interval)
		for i := range steps {
			<-next.C
			graph.check()
			if i >= 30 { // orders leaks the connections that payments closes
				orders.Connect(paymentsListener.Local, 3)
				payments.Close(payments.Accept(paymentsListener, 3)...)
			}
			switch {
			case i < 60:
				visits := users.Connect(uploadsListener.Local, perStep)
				uploads.Close(uploads.Accept(uploadsListener, perStep)...)
				users.Close(visits...)
			case i < 60+backlog/perStep: // uploads no longer accepts
				users.Connect(uploadsListener.Local, perStep)
			}
		}
		takeScreenshot(t, "leak.png", `sum by (process_name) (procnetstat_process_tcp_close_wait)`)
		takeScreenshot(t, "accept-queue.png", `sum by (__name__) ({process_name="uploads",__name__=~".+_accept_queue.*"})`)
	})
}

func takeScreenshot(t *testing.T, name, query string) {
	t.Helper()
	page := "http://" + prometheusAddress + "/graph?" + url.Values{
		"g0.expr": {query}, "g0.tab": {"0"}, "g0.range_input": {"150s"},
	}.Encode()
	out, err := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
		"--window-size=1100,960", "--virtual-time-budget=15000", "--user-data-dir="+t.TempDir(),
		"--screenshot="+filepath.Join(os.Getenv("PICTURES"), name), page).CombinedOutput()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, out)
	}
}
