package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// TestFileCapabilities checks that file capabilities let an unprivileged user see the processes of all users. Where the program
// cannot get them, it logs a warning and sees less, or the kernel refuses to execute it.
func TestFileCapabilities(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.Require(t, "setcap", "setpriv")
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		ownedByRoot := "procnetstat_process,process_name=" + filepath.Base(os.Args[0]) + ",user=root "
		const unattributed = "procnetstat_process,process_name=unattributed,user=unattributed "
		fallback := []string{"CAP_BPF and CAP_PERFMON", "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"}

		for _, test := range []struct {
			name         string
			capabilities string   // of the program
			setpriv      []string // further arguments of setpriv
			owner        string   // prefix of the metric of the listener's process
			gather       string   // prefix of procnetstat_gather
			messages     []string
			fails        string // error of the start
		}{
			{
				"with", "cap_bpf,cap_perfmon+ep", nil,
				ownedByRoot, "procnetstat_gather,owners=bpf,source=netlink ", nil, "",
			},
			{
				"without", "", nil,
				unattributed, "procnetstat_gather,owners=procfs,source=netlink ", fallback, "",
			},
			{
				// Use a second setpriv: no_new_privs does not drop root's capabilities, which the first one still has.
				"with, and no_new_privs", "cap_bpf,cap_perfmon+ep", []string{"setpriv", "--no-new-privs"},
				unattributed, "procnetstat_gather,owners=procfs,source=netlink ", fallback, "",
			},
			{
				"with, beyond the bounding set", "cap_bpf,cap_perfmon+ep", []string{"--bounding-set=-bpf"},
				"", "", nil, "Operation not permitted",
			},
		} {
			t.Run(test.name, func(t *testing.T) {
				program := copyTestBinary(t)
				if test.capabilities != "" {
					setCapabilities(t, program, test.capabilities)
				}
				ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
				defer cancel()
				args := append([]string{"--reuid=65534", "--regid=65534", "--clear-groups"}, test.setpriv...)
				cmd := exec.CommandContext(ctx, "setpriv", append(args, program, "-poll_interval_disabled")...)
				cmd.Env = append(os.Environ(), runAsEnv+"=real", noSleep)
				if test.fails != "" {
					got := runToEnd(t, cmd)
					if got.code == 0 || !strings.Contains(got.stderr, test.fails) {
						t.Fatalf("%v: want %q", got, test.fails)
					}
					return
				}
				p := launch(t, cmd)
				for range 3 {
					p.prompt()
					owner, gather := p.expectMetrics(test.owner)
					if !strings.Contains(owner, "tcp_listen=1i") {
						t.Errorf("no listener in %q", owner)
					}
					isKnown := strings.Contains(gather, "unattributed=0i")
					if !strings.HasPrefix(gather, test.gather) || isKnown != (test.owner == ownedByRoot) {
						t.Errorf("got %q, want %q", gather, test.gather)
					}
				}
				p.stdin.Close()
				p.expectMessages(test.messages)
			})
		}
	})
}

// TestRequiredOptions checks that a required source or owner lookup that is unavailable fails the start, with exit code 1 and one
// line of error. With "auto" the program logs a warning and continues.
func TestRequiredOptions(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.Require(t, "setpriv")
		program := copyTestBinary(t)
		const fallback = "W! BPF owner lookup unavailable (the BPF program requires CAP_BPF and CAP_PERFMON: unsupported operation: " +
			"operation not permitted); falling back to /proc, which costs more\n"
		for _, test := range []struct {
			name, options string
			code          int
			stderr        string // the first lines
			lines         int
		}{
			{"owners", `owners = "bpf"`, 1, `E! running input failed: failed to start input: owners "bpf" is required: ` +
				"the BPF program requires CAP_BPF and CAP_PERFMON: unsupported operation: operation not permitted\n", 1},
			{"owners not needed", "owners = \"bpf\"\nmeasurements = [\"host\"]", 0, "", 0},
			{"source", "owners = \"procfs\"\nsource = \"netlink\"\nprotocols = [\"icmp\"]", 1,
				`E! running input failed: failed to start input: source "netlink" is required: ` +
					"sock_diag does not support icmp sockets\n", 1},
			{"auto", "", 0, fallback, 2}, // the second line: processes of other users are unknown
		} {
			t.Run(test.name, func(t *testing.T) {
				config := filepath.Join(filepath.Dir(program), "procnetstat.conf")
				if err := os.WriteFile(config, []byte("[[inputs.procnetstat]]\n"+test.options+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
				defer cancel()
				cmd := exec.CommandContext(ctx, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
					program, "-config", config, "-once")
				cmd.Env = append(os.Environ(), runAsEnv+"=real", noSleep)
				got := runToEnd(t, cmd)
				if got.code != test.code || !strings.HasPrefix(got.stderr, test.stderr) || strings.Count(got.stderr, "\n") != test.lines {
					t.Errorf("%v: want code %d and %d lines, the first %q", got, test.code, test.lines, test.stderr)
				}
			})
		}
	})
}

// copyTestBinary returns a copy of the test binary that every user may execute.
func copyTestBinary(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "procnetstat")
	if err := os.WriteFile(program, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return program
}

func setCapabilities(t *testing.T, program, capabilities string) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(program, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Flags&unix.ST_NOSUID != 0 {
		testnet.SkipOrFail(t, program+" is on a file system mounted nosuid, which disables file capabilities")
	}
	if out, err := exec.CommandContext(t.Context(), "setcap", capabilities, program).CombinedOutput(); err != nil {
		testnet.SkipOrFail(t, "setcap "+capabilities+": "+string(out))
	}
}

// expectMetrics reads the metrics of a gather. It returns the first with this prefix, and that of the gather itself.
func (p *running) expectMetrics(prefix string) (found, gather string) {
	p.t.Helper()
	for {
		line, err := p.output.ReadString('\n')
		switch {
		case err != nil:
			rest, _ := io.ReadAll(p.stderr)
			p.t.Fatalf("got %q: %v; standard error: %s", line, err, rest)
		case strings.HasPrefix(line, prefix) && found == "":
			found = line
		case strings.HasPrefix(line, "procnetstat_gather,") && gather == "":
			gather = line
		case strings.HasPrefix(line, "procnetstat_gather,"): // its counters are the last metric
			return found, gather
		}
	}
}

// expectMessages waits for the exit of the program. Its messages must be warnings that contain these texts, one each.
func (p *running) expectMessages(texts []string) {
	p.t.Helper()
	var got []string
	for lines := bufio.NewScanner(p.stderr); lines.Scan(); {
		got = append(got, lines.Text())
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Error(err)
	}
	if len(got) != len(texts) {
		p.t.Fatalf("got %q, want %q", got, texts)
	}
	for i, text := range texts {
		if !strings.HasPrefix(got[i], "W! ") || !strings.Contains(got[i], text) {
			p.t.Errorf("got %q, want %q", got[i], text)
		}
	}
}
