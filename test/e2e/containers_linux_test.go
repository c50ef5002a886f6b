package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Telegraf in a container, with the proc file system of the host mounted, attributes the sockets of the host and of each
// container as ss does, although all of them use the same addresses.
func TestContainers(t *testing.T) {
	setUp(t)
	testnet.Require(t, "runc", "nsenter")
	program := customTelegraf(t)
	testnet.IsolatePIDs(t, func() {
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		server.Accept(server.Listen("tcp4", selfAddress, 16), len(client.Connect(selfAddress, 7)))
		var containers []*container
		for i := range 3 {
			containers = append(containers, startConnectedContainer(t, fmt.Sprintf("container-%d", i), i+1))
		}
		for _, as := range []struct {
			name, source string
			capabilities []string
		}{
			{"netlink", "netlink", []string{"CAP_SYS_PTRACE", "CAP_SYS_ADMIN"}},
			{"procfs", "procfs", []string{"CAP_SYS_PTRACE"}},
		} {
			t.Run(as.name, func(t *testing.T) {
				tg := startTelegrafInContainer(t, program, as.capabilities)
				gathers := []int64{tg.gatherAfter(0, "host_"+lastMeasurement), tg.gatherAfter(0, "all_"+lastMeasurement)}
				host := tg.seen[gathers[0]]
				requireSeries(t, host, "host_procnetstat_process", processSeriesFromSS(t, "/proc/1/ns/net", "host_", map[string]string{}))
				if series := seriesName("host_"+lastMeasurement, map[string]string{"owners": "procfs", "source": as.source}); host[series] == nil {
					t.Errorf("no series %s in %v", series, host.measurement("host_"+lastMeasurement))
				}

				want := processSeriesFromSS(t, "/proc/1/ns/net", "all_", map[string]string{"netns": inodeOf(t, "/proc/1/ns/net")})
				for _, c := range containers {
					tags := map[string]string{"netns": c.id, "container_id": c.id}
					for series, f := range processSeriesFromSS(t, c.netns(), "all_", tags) {
						want[series] = f
					}
				}
				requireSeries(t, tg.seen[gathers[1]], "all_procnetstat_process", want)
				tg.requireNoErrors()
			})
		}
	})
}

// processSeriesFromSS returns the process series, with the tags, of the TCP sockets that ss shows in a network namespace.
func processSeriesFromSS(t *testing.T, file, prefix string, tags map[string]string) gather {
	t.Helper()
	found := gather{}
	for _, row := range testnet.SSIn(t, file, "-t", "-p") {
		if len(row.Processes) != 1 {
			t.Fatalf("ss does not show one process for %v", row)
		}
		tags["process_name"], tags["user"] = row.Processes[0].Name, "root"
		found.of(seriesName(prefix+"procnetstat_process", tags))["tcp_"+strings.ToLower(row.State)]++
	}
	return found
}

func inodeOf(t *testing.T, file string) string {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(file, &stat); err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(stat.Ino, 10)
}

// selfConnectEnv is the number of connections that the test binary opens to itself in place of running tests.
const selfConnectEnv = "E2E_SELF_CONNECT"

var selfAddress = netip.MustParseAddrPort("127.0.0.1:5000")

// connectToSelf opens connections to this process, and holds them until SIGTERM.
func connectToSelf(connections string) error {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	listener, err := net.Listen("tcp4", selfAddress.String())
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(connections)
	if err != nil {
		return err
	}
	for range n {
		if _, err = net.Dial("tcp4", selfAddress.String()); err == nil {
			_, err = listener.Accept()
		}
		if err != nil {
			return err
		}
	}
	<-end
	return nil
}

// container is a container of runc.
type container struct {
	*server
	id    string
	state string // the --root directory of runc
}

// startConnectedContainer starts a container in which a process has connections to itself.
func startConnectedContainer(t *testing.T, name string, connections int) *container {
	t.Helper()
	program := testnet.Program(t, name)
	mounts := []bind{{filepath.Dir(program), "/app", "ro"}}
	for _, dir := range []string{"/usr", "/lib", "/lib64"} { // for the shared libraries
		if _, err := os.Stat(dir); err == nil {
			mounts = append(mounts, bind{dir, dir, "ro"})
		}
	}
	c := startContainer(t, mounts, []string{selfConnectEnv + "=" + strconv.Itoa(connections)}, nil, "/app/"+name)
	waitFor(t, "sockets in container "+name, func() bool {
		c.check()
		return c.pid() != 0 && len(testnet.SSIn(t, c.netns(), "-t", "state", "established")) == 2*connections
	})
	return c
}

// pid returns the process ID of the first process in the container, or 0 if it is not running yet.
func (c *container) pid() int {
	out, err := exec.Command("runc", "--root", c.state, "state", c.id).Output()
	var state struct {
		PID    int
		Status string
	}
	if err != nil || json.Unmarshal(out, &state) != nil || state.Status != "running" {
		return 0
	}
	return state.PID
}

func (c *container) netns() string { return fmt.Sprintf("/proc/%d/ns/net", c.pid()) }

// bind is a bind mount.
type bind struct{ from, to, mode string }

// startContainer starts a program in a container as Docker does: in new namespaces, as root with few capabilities.
func startContainer(t *testing.T, mounts []bind, env, capabilities []string, args ...string) *container {
	t.Helper()
	type object = map[string]any
	bundle, id := t.TempDir(), fmt.Sprintf("%064x", time.Now().UnixNano())
	all := []object{
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755"}},
		{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	for _, m := range mounts {
		all = append(all, object{"destination": m.to, "type": "none", "source": m.from, "options": []string{"rbind", m.mode}})
	}
	capabilities = slices.Concat(capabilities, []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	})
	var namespaces []object
	for _, kind := range []string{"pid", "network", "ipc", "uts", "mount", "cgroup"} {
		namespaces = append(namespaces, object{"type": kind})
	}
	config, err := json.Marshal(object{
		"ociVersion": "1.0.2",
		"process": object{
			"args": args, "env": append(env, "PATH=/usr/bin:/bin"), "cwd": "/", "user": object{"uid": 0, "gid": 0},
			"capabilities": object{"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
		},
		"root": object{"path": "rootfs"}, "mounts": all,
		"linux": object{"cgroupsPath": "/docker-" + id + ".scope", "namespaces": namespaces},
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &container{id: id, state: t.TempDir()}
	c.server = startServer(t, "runc", "--root", c.state, "run", "--bundle", bundle, id)
	return c
}

// startTelegrafInContainer starts a Telegraf in a container that gathers from the host, which is the PID namespace of this
// process, and from all network namespaces on it.
func startTelegrafInContainer(t *testing.T, program string, capabilities []string) *telegraf {
	t.Helper()
	dir := t.TempDir()
	var config strings.Builder
	config.WriteString(`
[agent]
  interval = "1s"
  precision = "1ns"
  omit_hostname = true
  skip_processors_after_aggregators = true
[[outputs.file]]
  files = ["/app/metrics"]
  data_format = "influx"
  flush_interval = "50ms"`)
	for _, namespaces := range []string{"host", "all"} {
		fmt.Fprintf(&config, `
[[inputs.procnetstat]]
  name_prefix = "%s_"
  namespaces = [%q]
  process_tags = ["process_name", "user", "container_id"]
  fieldinclude = ["tcp_listen", "tcp_established", "sockets"]`, namespaces, namespaces)
	}
	if err := os.WriteFile(filepath.Join(dir, "telegraf.conf"), []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	mounts := []bind{
		{dir, "/app", "rw"}, {filepath.Dir(program), "/opt", "ro"}, {"/proc", "/host/proc", "ro"}, {"/etc", "/host/etc", "ro"},
	}
	return follow(t, filepath.Join(dir, "metrics"), func() *server {
		return startContainer(t, mounts, []string{"HOST_PROC=/host/proc", "HOST_ETC=/host/etc"}, capabilities,
			"/opt/"+filepath.Base(program), "--config", "/app/telegraf.conf").server
	})
}
