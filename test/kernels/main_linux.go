// Command kernels runs tests in virtual machines with other kernels than this machine's: those that Debian makes for clouds, in
// qemu without KVM. See docs/developers/TESTING.md.
//
//	kernels [-releases 6.1,6.12] [-run regexp] [-limit 20m] [-cache directory] [package ...]
//
// The packages are patterns of go list. The program is also process 1 of the virtual machine, which is the guest below.
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
	releases := flag.String("releases", "6.1,6.12", "`releases` of Linux, separated by commas")
	flag.StringVar(&o.run, "run", "", "run only the tests that match the `regexp`, excluded ones too")
	flag.DurationVar(&o.limit, "limit", 20*time.Minute, "time for the tests with one kernel")
	flag.StringVar(&o.cache, "cache", ".cache/kernels", "`directory` for downloaded packages, images and outputs")
	flag.Parse()
	o.patterns = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := testKernels(ctx, o, strings.Split(*releases, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

type options struct {
	patterns   []string
	run, cache string
	limit      time.Duration
}

func testKernels(ctx context.Context, o options, releases []string) error {
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
			failures = append(failures, fmt.Errorf("Linux %s: %w", release, err))
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
	image, err := buildImage(ctx, k, suites, work)
	if err != nil {
		return fmt.Errorf("building the initramfs: %w", err)
	}
	fmt.Printf("=== Linux %s: the output of the tests goes to %s\n", k.version, filepath.Join(work, outputFile))
	began := time.Now()
	bootErr := boot(ctx, k, image, work, o.limit)
	r, err := readResults(ctx, filepath.Join(work, outputFile), suites)
	if err != nil {
		return err
	}
	r.print(os.Stdout, k.version, time.Since(began))
	if bootErr != nil || !r.complete() {
		fmt.Printf("--- the end of the console:\n%s\n", tail(filepath.Join(work, consoleFile), 40))
	}
	if err := errors.Join(bootErr, r.err()); err != nil {
		return err
	}
	return nil
}
