package main

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"
)

// version is procnetstat's, where the build sets it with -ldflags "-X main.version=…".
var version string

func printVersion(w io.Writer) error {
	_, err := fmt.Fprintln(w, fullVersion())
	return err
}

func fullVersion() string {
	return fmt.Sprintf("Telegraf %s (procnetstat %s)", telegrafVersion(), procnetstatVersion())
}

func procnetstatVersion() string {
	if version != "" {
		return strings.TrimPrefix(version, "v")
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return strings.TrimPrefix(info.Main.Version, "v")
	}
	return "devel"
}

// telegrafVersion is that of the Telegraf module built in. Telegraf's own variable for it is only set by its own build.
func telegrafVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, module := range info.Deps {
		if module.Path == "github.com/influxdata/telegraf" {
			return strings.TrimPrefix(module.Version, "v")
		}
	}
	return "unknown"
}
