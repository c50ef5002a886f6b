package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

const qemu = "qemu-system-x86_64"

// What the guest writes to its two serial ports, in the directory of the kernel's release.
const (
	consoleFile = "console.txt"
	outputFile  = "output.txt"
)

// boot runs the guest until it turns itself off. A panic reboots, which ends it too.
func boot(ctx context.Context, k kernel, image, work string, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(limited, qemu,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		// Translated, so that it runs on machines that are virtual themselves, and the same everywhere.
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G",
		"-kernel", k.image(), "-initrd", image,
		"-append", "console=ttyS0 panic=-1 oops=panic mitigations=off tsc=reliable",
		"-serial", "file:"+filepath.Join(work, consoleFile), "-serial", "file:"+filepath.Join(work, outputFile),
	)
	out, err := cmd.CombinedOutput()
	if errors.Is(limited.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the guest did not end in %v", limit)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", qemu, err, out)
	}
	return nil
}
