package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// programs are those of this machine that tests start and that busybox does not have, or not all of.
var programs = []string{"ip", "ss", "nstat", "tc", "nft", "mount", "nsenter", "setpriv", "unshare"}

// moduleDirs hold the modules that tests use, and those that these depend on.
var moduleDirs = []string{"net", "drivers/net", "lib", "crypto"}

// etc are the files of /etc.
var etc = map[string]string{
	"passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
	"group":         "root:x:0:\nnogroup:x:65534:\n",
	"hosts":         "127.0.0.1 localhost guest\n::1 localhost\n",
	"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}

// guestEnv is the environment of the tests. With CI=true a test that misses something fails.
var guestEnv = []string{"CI=true", "HOME=/root", "PATH=/usr/bin:/bin", "TMPDIR=/tmp", "SLOW_TESTS=1", machineEnv + "=disposable"}

// machineEnv tells tests that nothing else runs on the machine, and that it ends with them: they may unload kernel modules.
const machineEnv = "TESTNET_MACHINE"

// buildImage makes an initramfs of static programs and test binaries, and returns its file.
func buildImage(ctx context.Context, k kernel, suites []suite, args []string, work string) (string, error) {
	root := filepath.Join(work, "root")
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	for _, dir := range []string{"bin", "etc", "root", "tmp", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|fs.ModeSticky); err != nil {
		return "", err
	}
	for name, content := range etc {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	own, err := os.Executable()
	if err != nil {
		return "", err
	}
	if err := copyFile(own, filepath.Join(root, "init")); err != nil {
		return "", err
	}
	if err := addPrograms(ctx, root); err != nil {
		return "", err
	}
	if err := addModules(ctx, k, root); err != nil {
		return "", fmt.Errorf("adding kernel modules: %w", err)
	}
	if err := addSuites(suites, args, root); err != nil {
		return "", err
	}
	return pack(ctx, root, filepath.Join(work, "initramfs"))
}

// addPrograms adds busybox under the names of its applets, and the programs, with their libraries.
func addPrograms(ctx context.Context, root string) error {
	if err := addProgram(ctx, root, "busybox", "bin"); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "busybox", "--list").Output()
	if err != nil {
		return fmt.Errorf("listing what busybox has: %w", err)
	}
	for applet := range strings.FieldsSeq(string(out)) {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := os.Symlink("bin", filepath.Join(root, "sbin")); err != nil { // the kernel starts /sbin/modprobe
		return err
	}
	for _, name := range programs {
		if err := addProgram(ctx, root, name, "usr/bin"); err != nil {
			return err
		}
	}
	return nil
}

// addProgram adds a program to a directory, and its libraries to those that they are in here.
func addProgram(ctx context.Context, root, name, dir string) error {
	program, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if err := copyFile(program, filepath.Join(root, dir, name)); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "ldd", program).CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("not a dynamic executable")) {
		return fmt.Errorf("finding the libraries of %s: %w: %s", program, err, out)
	}
	for _, library := range libraries.FindAllString(string(out), -1) {
		if err := copyFile(library, filepath.Join(root, library)); err != nil {
			return err
		}
	}
	return nil
}

// libraries matches the paths in what ldd prints.
var libraries = regexp.MustCompile(`/\S+`)

// addModules adds modules as modprobe reads them: with the files that depmod makes, and not compressed.
func addModules(ctx context.Context, k kernel, root string) error {
	modules := filepath.Join(root, "lib/modules", k.version)
	for _, dir := range moduleDirs {
		if err := os.CopyFS(filepath.Join(modules, "kernel", dir), os.DirFS(filepath.Join(k.modules(), "kernel", dir))); err != nil {
			return err
		}
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		if err := copyFile(filepath.Join(k.modules(), name), filepath.Join(modules, name)); err != nil {
			return err
		}
	}
	script := `set -e; find "$1/lib/modules" -name '*.ko.xz' -exec xz -d {} +; busybox depmod -b "$1" "$2"`
	if out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", root, k.version).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// addSuites adds the test binaries, each beside a copy of the testdata of its package, and the plan.
func addSuites(suites []suite, args []string, root string) error {
	plan := plan{Env: guestEnv}
	for _, s := range suites {
		dir := filepath.Join("/tests", s.Package)
		binary := filepath.Join(dir, filepath.Base(s.Binary))
		if err := copyFile(s.Binary, filepath.Join(root, binary)); err != nil {
			return err
		}
		testdata := os.DirFS(filepath.Join(s.Dir, "testdata"))
		if err := os.CopyFS(filepath.Join(root, dir, "testdata"), testdata); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		r := run{Package: s.Package, Binary: binary, Args: args}
		if len(s.Tests) > 0 {
			r.Args = append(slices.Clone(args), "-test.run="+runPattern(s.Tests))
		}
		plan.Runs = append(plan.Runs, r)
	}
	text, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, planFile), text, 0o644)
}

// pack makes a cpio archive of a directory, whose files belong to root there.
func pack(ctx context.Context, root, image string) (string, error) {
	list := bytes.Buffer{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != root {
			list.WriteString(strings.TrimPrefix(path, root+"/") + "\n")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	file, err := os.Create(image)
	if err != nil {
		return "", err
	}
	defer file.Close()
	var complaints bytes.Buffer
	cpio := exec.CommandContext(ctx, "busybox", "cpio", "-o", "-H", "newc", "-R", "0:0")
	cpio.Dir, cpio.Stdin, cpio.Stdout, cpio.Stderr = root, &list, file, &complaints
	if err := cpio.Run(); err != nil {
		return "", fmt.Errorf("packing: %w: %s", err, complaints.Bytes())
	}
	return image, file.Close()
}

// copyFile copies a file that is to be started, or loaded by one, and makes its directory.
func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
