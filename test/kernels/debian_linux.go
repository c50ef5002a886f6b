package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A kernel is one of Debian's, unpacked.
type kernel struct {
	version string // what uname -r prints
	dir     string // that the package was unpacked in
}

func (k kernel) image() string   { return filepath.Join(k.dir, "boot", "vmlinuz-"+k.version) }
func (k kernel) modules() string { return filepath.Join(k.dir, "lib/modules", k.version) }

// updatePackageLists lets apt know which point releases are served now. Only root may.
func updatePackageLists(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if out, err := exec.CommandContext(ctx, "apt-get", "-qq", "update").CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get update: %w: %s", err, out)
	}
	return nil
}

// fetchKernel downloads and unpacks the newest cloud kernel of a release such as 6.1, unless the cache has it.
func fetchKernel(ctx context.Context, release, cache string) (kernel, error) {
	pattern := `^linux-image-` + regexp.QuoteMeta(release) + `\.[0-9][0-9a-z.+~-]*-cloud-amd64$`
	out, err := exec.CommandContext(ctx, "apt-cache", "search", "--names-only", pattern).Output()
	if err != nil {
		return kernel{}, fmt.Errorf("apt-cache search: %w", err)
	}
	name := newestPackage(string(out))
	if name == "" {
		return kernel{}, fmt.Errorf("apt serves no package %s", pattern)
	}
	k := kernel{version: strings.TrimPrefix(name, "linux-image-"), dir: filepath.Join(cache, name)}
	if _, err := os.Stat(k.image()); err == nil {
		return k, nil
	}
	download, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(download)
	get := exec.CommandContext(ctx, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name)
	get.Dir = download
	if out, err := get.CombinedOutput(); err != nil {
		return kernel{}, fmt.Errorf("downloading %s: %w: %s", name, err, out)
	}
	files, err := filepath.Glob(filepath.Join(download, "*.deb"))
	if err != nil || len(files) != 1 {
		return kernel{}, errors.Join(err, fmt.Errorf("downloading %s made %d files", name, len(files)))
	}
	unpacked := filepath.Join(download, "unpacked")
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", files[0], unpacked).CombinedOutput(); err != nil {
		return kernel{}, fmt.Errorf("unpacking %s: %w: %s", files[0], err, out)
	}
	if err := os.RemoveAll(k.dir); err != nil {
		return kernel{}, err
	}
	return k, os.Rename(unpacked, k.dir)
}

// newestPackage returns the name with the highest version of those that apt-cache search printed, which has a package and its
// description in each line.
func newestPackage(found string) (newest string) {
	for line := range strings.Lines(found) {
		name, _, _ := strings.Cut(line, " ")
		if newest == "" || compareVersions(name, newest) > 0 {
			newest = name
		}
	}
	return newest
}

var digits = regexp.MustCompile(`\d+`)

// compareVersions compares the numbers in the names of two packages, one after the other.
func compareVersions(a, b string) int {
	return slices.CompareFunc(digits.FindAllString(a, -1), digits.FindAllString(b, -1), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
}
