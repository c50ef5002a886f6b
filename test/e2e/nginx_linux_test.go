package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

const nginxAddress = "127.0.0.1:8088"

// All files of this nginx are in one directory.
const nginxConfig = `
user nobody nogroup;
worker_processes 2;
daemon off;
pid %[1]s/pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  server {
    listen ` + nginxAddress + `;
    location / { return 200 "hello"; }
    location = /status { stub_status; }
  }
}
`

// nginx's master, as root, and its workers, as nobody, hold the same listener. Each of many short connections counts once, for the
// workers: as many as nginx itself counts.
func TestNginx(t *testing.T) {
	nginx := findNginx(t)
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		startNginx(t, nginx)
		held, err := net.ListenPacket("udp4", "127.0.0.1:0") // a gather leaves out a process without sockets
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		tg := startTelegraf(t, program, onlyWhenAsked, "[[inputs.procnetstat]]\n  measurements = [\"host\", \"process\", \"listener\", \"gather\"]\n")
		tg.gatherAfter(time.Now().UnixNano(), lastMeasurement) // from here on connections count

		const requests, parallel = 5000, 20
		var clients sync.WaitGroup
		for range parallel {
			clients.Go(func() {
				for range requests / parallel {
					if body, err := getOnce("/"); err != nil || body != "hello" {
						t.Errorf("nginx answers %q: %v", body, err)
						return
					}
				}
			})
		}
		clients.Wait()
		accepted := nginxAccepted(t) - beforeTelegraf
		if accepted != requests+1 {
			t.Fatalf("nginx has accepted %d connections, want %d and the one that asks", accepted, requests)
		}

		var at int64
		listener := func() gather { return ofNginx(tg.seen[at].measurement("procnetstat_listener")) }
		waitFor(t, "all connections", func() bool {
			at = tg.gatherAfter(time.Now().UnixNano(), lastMeasurement)
			return listener().sum("tcp_closed") >= accepted
		})
		for range 2 { // once, also in later gathers
			at = tg.gatherAfter(at, lastMeasurement)
			if closed := listener().sum("tcp_closed"); closed != accepted {
				t.Errorf("the listener has tcp_closed=%d, want %d", closed, accepted)
			}
			processes := ofNginx(tg.seen[at].measurement("procnetstat_process"))
			for user, want := range map[string]int64{"root": 0, "nobody": accepted} {
				series := seriesName("procnetstat_process", map[string]string{"process_name": "nginx", "user": user})
				requireFields(t, processes, series, fields{"tcp_opened": want, "tcp_closed": want})
			}
			all := tg.seen[at].measurement("procnetstat_process").sum("tcp_closed")
			if host := tg.seen[at][hostSeries]["tcp_closed"]; all != host || host != 2*accepted {
				t.Errorf("tcp_closed=%d of the host, %d of all processes, want %d, for both ends", host, all, 2*accepted)
			}
		}
		tg.requireNoErrors()
	})
}

// beforeTelegraf is the number of connections that nginx has accepted before Telegraf starts: the first that is answered.
const beforeTelegraf = 1

// findNginx returns the path of nginx, which is in a directory for administrators.
func findNginx(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"nginx", "/usr/sbin/nginx"} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	testnet.SkipOrFail(t, "nginx is not installed")
	return ""
}

// startNginx starts nginx, and waits until both workers run.
func startNginx(t *testing.T, program string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, program, "-e", "stderr", "-p", dir, "-c", config)
	waitFor(t, "nginx with two workers", func() bool {
		s.check()
		for _, row := range testnet.SS(t, "-t", "-l", "-p") {
			if row.Local.String() == nginxAddress {
				return len(row.Processes) == 3
			}
		}
		return false
	})
	if _, err := getOnce("/"); err != nil {
		t.Fatal(err)
	}
}

// getOnce reads a page of nginx through a connection of its own.
func getOnce(path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: waitLimit}
	response, err := client.Get("http://" + nginxAddress + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// nginxAccepted returns the number of connections that nginx has accepted, with the one that asks: see ngx_http_stub_status_module.
func nginxAccepted(t *testing.T) int64 {
	t.Helper()
	status, err := getOnce("/status")
	if err != nil {
		t.Fatal(err)
	}
	_, numbers, _ := strings.Cut(status, "server accepts handled requests\n")
	var accepted, handled, requests int64
	if _, err := fmt.Sscan(numbers, &accepted, &handled, &requests); err != nil {
		t.Fatalf("the status of nginx is %q: %v", status, err)
	}
	return accepted
}

// ofNginx returns the series with the process name nginx.
func ofNginx(all gather) gather {
	found := gather{}
	for series, f := range all {
		if strings.Contains(series, `process_name="nginx"`) {
			found[series] = f
		}
	}
	return found
}
