package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

const packagesEnv = "E2E_PACKAGES" // a directory with the packages of two versions

const (
	olderVersion, newerVersion = "1.0.0~rc.1", "1.0.0"

	installedProgram = "/usr/bin/procnetstat"
	installedOptions = "/etc/telegraf/procnetstat.conf"
	installedStanza  = "/etc/telegraf/telegraf.d/procnetstat.conf"
)

// The package is installed beside a Telegraf package, which runs as the user telegraf. Telegraf runs procnetstat without further
// edits, and InfluxDB has the processes of root. The configuration survives upgrade and removal, and nothing remains after a
// purge.
func TestPackage(t *testing.T) {
	testnet.Require(t, "dpkg", "dpkg-deb", "setcap", "getcap", "setpriv", "useradd")
	setUp(t)
	packages, stock := buildBothPackages(t), stockTelegraf(t)
	testnet.IsolateMounts(t, func() {
		host := newOverlayHost(t)
		host.install(vendorPackage(t, stock))
		before := host.files()

		host.install(filepath.Join(packages, "older", debName(olderVersion)))
		host.requireCapabilities()
		host.requireReloads(1)
		options, err := exec.Command(installedProgram, "-sample-config").Output()
		if installed := readFile(t, installedOptions); err != nil || installed != string(options) {
			t.Errorf("the options file of the package differs from -sample-config: %v", err)
		}

		db := newInfluxDB(t)
		db.start()
		p := testnet.Start(t, testnet.Process{Name: "of-root"})
		p.Listen("tcp4", loopback, 1)
		telegraf := startServer(t, "setpriv", "--reuid=telegraf", "--regid=telegraf", "--init-groups", "--inh-caps=-all",
			"telegraf", "--config", "/etc/telegraf/telegraf.conf", "--config-directory", "/etc/telegraf/telegraf.d")
		waitFor(t, "process of root in InfluxDB", func() bool {
			telegraf.check()
			return len(db.query(`SELECT tcp_listen FROM procnetstat_process WHERE process_name = 'of-root' AND "user" = 'root'`)) > 0
		})
		if gathers := db.query(`SELECT * FROM procnetstat_gather WHERE owners = 'bpf' AND unattributed = 0`); len(gathers) == 0 {
			t.Error("no gather attributes all sockets to processes")
		}
		telegraf.stop()
		seen := host.run("runuser", "-u", "telegraf", "--", "procnetstat", "-config", installedOptions, "-once")
		if !strings.Contains(seen, "procnetstat_process,process_name=of-root,user=root ") {
			t.Errorf("Telegraf's user sees\n%s", seen)
		}

		edit(t, installedOptions, "# max_series = 500", "max_series = 400")
		edit(t, installedStanza, `signal = "STDIN"`, `signal = "SIGUSR1"`)
		host.install(filepath.Join(packages, "newer", debName(newerVersion)))
		host.requireCapabilities()
		host.requireReloads(2)
		requireEdited := func(stanza string) {
			t.Helper()
			options, stanza := readFile(t, installedOptions), readFile(t, stanza)
			if !strings.Contains(options, "max_series = 400") || !strings.Contains(stanza, `"SIGUSR1"`) {
				t.Error("the edits of the configuration are lost")
			}
		}
		requireEdited(installedStanza)

		host.dpkg("--remove", "procnetstat")
		host.requireReloads(3)
		requireEdited(installedStanza + ".removed")
		if stanzas, _ := filepath.Glob("/etc/telegraf/telegraf.d/*.conf"); stanzas != nil {
			t.Errorf("Telegraf would start a missing program: %v", stanzas)
		}
		host.install(filepath.Join(packages, "newer", debName(newerVersion)))
		requireEdited(installedStanza)
		host.dpkg("--purge", "procnetstat")
		if after := host.files(); !slices.Equal(after, before) {
			t.Errorf("before it was installed and after it was purged:\n%q\n%q", before, after)
		}
	})
}

// If the package is installed before Telegraf, the program gets no capabilities until the group telegraf exists.
func TestPackageBeforeTelegraf(t *testing.T) {
	testnet.Require(t, "dpkg", "dpkg-deb", "setcap", "getcap", "useradd")
	setUp(t)
	packages, stock := buildBothPackages(t), stockTelegraf(t)
	testnet.IsolateMounts(t, func() {
		host := newOverlayHost(t)
		before := host.files()
		output := host.install(filepath.Join(packages, "newer", debName(newerVersion)))
		if !strings.Contains(output, "there is no group telegraf yet") {
			t.Errorf("dpkg printed %q", output)
		}
		if out, err := exec.Command("getcap", installedProgram).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("every user may run the program with %s: %v", out, err)
		}
		host.install(vendorPackage(t, stock))
		host.requireCapabilities()

		host.dpkg("--purge", "telegraf")
		host.dpkg("--purge", "procnetstat")
		if _, err := os.Stat("/etc/telegraf"); !os.IsNotExist(err) {
			t.Errorf("/etc/telegraf still exists: %v", err)
		}
		isAccountFile := func(file string) bool { return strings.Count(file, "/") == 2 && strings.HasPrefix(file, "/etc/") } // /etc/passwd, …
		// The vendor's package does not remove its user.
		if after := slices.DeleteFunc(host.files(), isAccountFile); !slices.Equal(after, before) {
			t.Errorf("before it was installed and after it was purged:\n%q\n%q", before, after)
		}
	})
}

// The program uses the permitted capabilities of its file as far as the bounding set allows them, and runs without any too.
func TestPermittedCapabilities(t *testing.T) {
	testnet.Require(t, "setcap", "setpriv")
	setUp(t)
	built := execdProgram(t)
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		testnet.Start(t, testnet.Process{Name: "of-root"}).Listen("tcp4", loopback, 1)
		program := filepath.Join(os.Getenv(scratchEnv), t.Name())
		copyFile(t, built, program)
		for _, file := range []string{"cap_bpf,cap_perfmon+p", "cap_sys_ptrace,cap_dac_read_search+p"} {
			if err := run(exec.Command("setcap", file, program)); err != nil {
				t.Fatal(err)
			}
			for bounding, sees := range map[string]bool{"--bounding-set=+all": true, "--bounding-set=-bpf,-sys_ptrace": false} {
				cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", bounding, program, "-once")
				out, err := cmd.Output()
				if err != nil {
					t.Errorf("%s, %s: %v", file, bounding, err)
				}
				if bytes.Contains(out, []byte("process_name=of-root,user=root ")) != sees {
					t.Errorf("%s, %s:\n%s", file, bounding, out)
				}
			}
		}
	})
}

// Packages built in another directory, with another umask and time zone, are identical.
func TestPackagesAreReproducible(t *testing.T) {
	setUp(t)
	first := filepath.Join(buildBothPackages(t), "newer")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	copying := exec.Command("sh", "-c", `umask 077 && mkdir "$1" &&
		git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- |
		tar --extract --no-same-permissions --directory "$1"`, "sh", elsewhere)
	copying.Dir = root
	if err := run(copying); err != nil {
		t.Fatal(err)
	}
	second := t.TempDir()
	build := makePackages(elsewhere, second, newerVersion)
	build.Args = append([]string{"sh", "-c", `umask 077 && exec "$@"`, "sh"}, build.Args...)
	build.Path = "/bin/sh"
	build.Env = append(build.Env, "TZ=Asia/Tokyo", "GIT_DIR="+filepath.Join(root, ".git"), "GIT_WORK_TREE="+root)
	if err := run(build); err != nil {
		t.Fatal(err)
	}
	names := fileNames(t, first)
	if other := fileNames(t, second); len(names) != 2 || !slices.Equal(names, other) {
		t.Fatalf("%v and %v", names, other)
	}
	for _, name := range names {
		if readFile(t, filepath.Join(first, name)) != readFile(t, filepath.Join(second, name)) {
			t.Errorf("%s differs", name)
		}
	}
}

// The RPM package has the files, configuration and scripts of the Debian package.
func TestRPM(t *testing.T) {
	testnet.Require(t, "rpm", "dpkg-deb")
	setUp(t)
	dir := filepath.Join(buildBothPackages(t), "newer")
	rpms, err := filepath.Glob(filepath.Join(dir, "*.rpm"))
	if err != nil || len(rpms) != 1 {
		t.Fatal(rpms, err)
	}
	queryPackage := func(program string, args ...string) string {
		t.Helper()
		out, err := exec.Command(program, args...).Output()
		if err != nil {
			t.Fatalf("%s %v: %v", program, args, err)
		}
		return string(out)
	}
	inDeb := map[string]string{} // the mode by the path
	for line := range strings.Lines(queryPackage("dpkg-deb", "--contents", filepath.Join(dir, debName(newerVersion)))) {
		if f := strings.Fields(line); !strings.HasPrefix(line, "d") {
			inDeb[strings.TrimPrefix(f[len(f)-1], ".")] = f[0] + " " + f[1]
		}
	}
	inRPM := map[string]string{}
	const format = `[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME}\n]`
	for line := range strings.Lines(queryPackage("rpm", "-qp", "--queryformat", format, rpms[0])) {
		f := strings.Fields(line)
		inRPM[f[0]] = f[1] + " " + f[2]
	}
	if !maps.Equal(inDeb, inRPM) || len(inDeb) == 0 {
		t.Errorf("the Debian package has %v, the RPM package %v", inDeb, inRPM)
	}
	if config := strings.Fields(queryPackage("rpm", "-qpc", rpms[0])); !slices.Equal(config, []string{installedOptions, installedStanza}) {
		t.Errorf("configuration: %v", config)
	}
	scripts := queryPackage("rpm", "-qp", "--scripts", rpms[0])
	for _, script := range []string{"postinst", "postrm"} {
		if content := readFile(t, "../../packaging/"+script); !strings.Contains(scripts, strings.TrimSpace(content)) {
			t.Errorf("the RPM package has no script %s", script)
		}
	}
	if needs := queryPackage("rpm", "-qp", "--requires", rpms[0]); !strings.Contains(needs, "/usr/sbin/setcap") {
		t.Errorf("the RPM package requires %s, want setcap", needs)
	}
}

// buildBothPackages returns the directory with the packages of the older and of the newer version.
func buildBothPackages(t *testing.T) string {
	t.Helper()
	testnet.Require(t, "make", "git")
	return builtOnce(t, packagesEnv, func() (string, error) {
		dir := filepath.Join(os.Getenv(scratchEnv), "packages")
		for name, version := range map[string]string{"older": olderVersion, "newer": newerVersion} {
			if err := run(makePackages("../..", filepath.Join(dir, name), version)); err != nil {
				return "", err
			}
		}
		return dir, nil
	})
}

// makePackages returns the command that builds the packages for this architecture.
func makePackages(root, dir, version string) *exec.Cmd {
	cmd := exec.Command("make", "-C", root, "packages", "DIST="+dir, "ARCHES="+runtime.GOARCH)
	cmd.Env = append(os.Environ(), "PACKAGE_VERSION="+version)
	return cmd
}

func debName(version string) string {
	return fmt.Sprintf("procnetstat_%s_%s.deb", version, runtime.GOARCH)
}

// vendorPackage builds a package of a Telegraf that creates the same user and directories as InfluxData's.
func vendorPackage(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"DEBIAN/control": "Package: telegraf\nVersion: 1.0-1\nArchitecture: " + runtime.GOARCH +
			"\nMaintainer: nobody <nobody@localhost>\nDescription: Telegraf for a test\n",
		"DEBIAN/preinst": "#!/bin/sh\nset -e\ngetent group telegraf >/dev/null || groupadd -r telegraf\n" +
			"id telegraf >/dev/null 2>&1 || useradd -r -M telegraf -s /bin/false -d /etc/telegraf -g telegraf\n",
		"etc/telegraf/telegraf.conf": "[agent]\n  interval = \"1s\"\n  flush_interval = \"1s\"\n  skip_processors_after_aggregators = true\n" +
			"[[outputs.influxdb]]\n  urls = [\"http://" + influxAddress + "\"]\n  database = \"" + database + "\"\n",
		"etc/telegraf/telegraf.d/.keep": "",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, program, filepath.Join(dir, "usr/bin/telegraf"))
	file := filepath.Join(t.TempDir(), "telegraf.deb")
	if err := run(exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "--build", dir, file)); err != nil {
		t.Fatal(err)
	}
	return file
}

// overlayHost is this host with overlays on its directories: changes are visible only in the mount namespace of the test, and end
// with it. A script in place of systemctl logs its arguments.
type overlayHost struct {
	t            *testing.T
	changes      string
	systemctlLog string
}

// newOverlayHost requires IsolateMounts.
func newOverlayHost(t *testing.T) *overlayHost {
	t.Helper()
	dir := t.TempDir()
	mount := func(source, target, kind, data string) {
		if err := unix.Mount(source, target, kind, 0, data); err != nil {
			t.Fatalf("mounting %s at %s: %v", kind, target, err)
		}
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	}
	mount("changes", dir, "tmpfs", "")
	h := &overlayHost{t: t, changes: filepath.Join(dir, "changes"), systemctlLog: filepath.Join(dir, "told")}
	for _, of := range []string{"/etc", "/usr", "/var"} {
		upper, work := h.changes+of, filepath.Join(dir, "work", of)
		for _, folder := range []string{upper, work} {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		mount("overlay", of, "overlay", "lowerdir="+of+",upperdir="+upper+",workdir="+work)
	}
	if err := os.MkdirAll("/run/systemd", 0o755); err != nil {
		t.Fatal(err)
	}
	mount("systemd", "/run/systemd", "tmpfs", "")
	if err := os.Mkdir("/run/systemd/system", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/usr/local/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho \"$@\" >> " + h.systemctlLog + "\n"
	if err := os.WriteFile("/usr/local/bin/systemctl", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *overlayHost) run(program string, args ...string) string {
	h.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func (h *overlayHost) dpkg(args ...string) string {
	h.t.Helper()
	return h.run("dpkg", args...)
}

func (h *overlayHost) install(file string) string {
	h.t.Helper()
	return h.dpkg("--install", file)
}

// files returns the added and changed files, except those of dpkg, logs and caches.
func (h *overlayHost) files() (files []string) {
	h.t.Helper()
	err := filepath.WalkDir(h.changes, func(path string, entry fs.DirEntry, err error) error {
		path = strings.TrimPrefix(path, h.changes)
		switch {
		case err != nil:
			return err
		case slices.Contains([]string{"/var/lib/dpkg", "/var/cache", "/var/log"}, path):
			return fs.SkipDir
		case !entry.IsDir():
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return files
}

// requireCapabilities checks that the program has its capabilities, and that only root and the group telegraf may run it.
func (h *overlayHost) requireCapabilities() {
	h.t.Helper()
	if got, want := h.run("getcap", installedProgram), installedProgram+" cap_perfmon,cap_bpf=p\n"; got != want {
		h.t.Errorf("getcap prints %q, want %q", got, want)
	}
	if got, want := h.run("stat", "--format=%U:%G %a", installedProgram), "root:telegraf 750\n"; got != want {
		h.t.Errorf("owner and mode of the program: %q, want %q", got, want)
	}
}

// requireReloads checks how often the package has reloaded Telegraf's configuration.
func (h *overlayHost) requireReloads(want int) {
	h.t.Helper()
	if log := readFile(h.t, h.systemctlLog); log != strings.Repeat("try-reload-or-restart telegraf.service\n", want) {
		h.t.Errorf("systemctl was run with %q, want %d reloads", log, want)
	}
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func edit(t *testing.T, file, from, to string) {
	t.Helper()
	content := readFile(t, file)
	if !strings.Contains(content, from) {
		t.Fatalf("%s has no %q", file, from)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(content, from, to, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.WriteFile(to, []byte(readFile(t, from)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, 0o755); err != nil {
		t.Fatal(err)
	}
}

func fileNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
