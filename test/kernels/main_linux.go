// Command kernels runs tests in virtual machines with other kernels than this machine's: those that Debian makes for clouds, in
// qemu without KVM. See docs/developers/TESTING.md.
//
//	kernels [-packages "patterns"] [-run regexp] [-limit 20m] [-cache directory] release ...
//
// The program is also process 1 of the virtual machine, which is the guest below.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if os.Getpid() == 1 {
		initGuest()
		return
	}
	var o options
	packages := flag.String("packages", defaultPackages, "`patterns` of packages, as go list takes them")
	flag.StringVar(&o.run, "run", "", "run only the tests that match the `regexp`, also excluded ones")
	flag.DurationVar(&o.limit, "limit", 20*time.Minute, "time for the tests with one kernel")
	flag.StringVar(&o.cache, "cache", ".cache/kernels", "`directory` for kernels, images and outputs")
	flag.Parse()
	o.packages = strings.Fields(*packages)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := testKernels(ctx, o, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

// defaultPackages are the library.
const defaultPackages = "./netstat/..."

// pluginPackage is the plugin. Most of its tests need more processor time than an emulated machine has: of those, the default is
// pluginTests, which need network devices that other machines may lack.
const pluginPackage = "./plugins/inputs/procnetstat"

var pluginTests = []string{"TestLinkLocalListeners", "TestLinkLocalPeers", "TestListenersOfDevices", "TestVRFListeners"}

type options struct {
	packages   []string
	run, cache string
	limit      time.Duration
}

func testKernels(ctx context.Context, o options, releases []string) error {
	if len(releases) == 0 {
		return errors.New("no release of Linux is given, such as 6.1")
	}
	for _, program := range []string{qemu, "busybox", "xz", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	cache, err := filepath.Abs(o.cache)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	suites, err := buildSuites(ctx, o, filepath.Join(cache, "tests"))
	if err != nil {
		return err
	}
	if err := updatePackageLists(ctx); err != nil {
		return err
	}
	var failures []error
	for _, release := range releases {
		if err := testKernel(ctx, release, suites, o, cache); err != nil {
			failures = append(failures, fmt.Errorf("kernel %s: %w", release, err))
		}
	}
	return errors.Join(failures...)
}

func testKernel(ctx context.Context, release string, suites []suite, o options, cache string) error {
	k, err := fetchKernel(ctx, release, cache)
	if err != nil {
		return err
	}
	work := filepath.Join(cache, release)
	// test2json marks the lines of the test binary among those of tests that run again in a process of their own.
	args := []string{"-test.v=test2json", "-test.timeout=" + (o.limit - time.Minute).String()}
	var excluded []exclusion
	if o.run != "" {
		args = append(args, "-test.run="+o.run)
	} else {
		excluded = excludedWith(release)
		args = append(args, "-test.skip="+skipPattern(excluded))
	}
	image, err := buildImage(ctx, k, suites, args, work)
	if err != nil {
		return fmt.Errorf("building the initramfs: %w", err)
	}
	fmt.Printf("=== Linux %s: the output of the tests goes to %s\n", k.version, filepath.Join(work, outputFile))
	began := time.Now()
	bootErr := boot(ctx, k, image, work, o.limit)
	r, err := readResults(ctx, filepath.Join(work, outputFile))
	if err != nil {
		return errors.Join(bootErr, err)
	}
	for _, e := range excluded {
		fmt.Printf("--- excluded: %s: %s\n", e.test, e.reason)
	}
	r.print(os.Stdout)
	fmt.Printf("Linux %s: %d passed, %d failed, %d skipped, %d excluded, of %d packages in %v\n", k.version,
		len(r.passed), len(r.failed), len(r.skipped), len(excluded), r.packages, time.Since(began).Round(time.Second))
	if bootErr != nil || r.packages < len(suites) {
		console, err := os.ReadFile(filepath.Join(work, consoleFile))
		if err != nil {
			return errors.Join(bootErr, err)
		}
		fmt.Printf("%s\n--- the end of the console of Linux %s\n", lastLines(string(console), 100), k.version)
	}
	return errors.Join(bootErr, r.err(len(suites)))
}
