// Command dashboards writes Grafana dashboards for the measurements of procnetstat in InfluxQL, Flux and PromQL. content.go
// describes each panel once, so that the three languages show the same.
//
//	go run . <directory>
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboards <directory>")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "dashboards:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	for _, lang := range []language{influxQL{}, flux{}, promQL{}} {
		if err := os.MkdirAll(filepath.Join(dir, lang.name()), 0o755); err != nil { //nolint:gosec // Grafana runs as another user
			return err
		}
		for _, board := range boards {
			built, err := build(board, lang)
			if err != nil {
				return fmt.Errorf("%s in %s: %w", board.name, lang.name(), err)
			}
			text, err := json.MarshalIndent(built, "", "  ")
			if err != nil {
				return err
			}
			file := filepath.Join(dir, lang.name(), board.name+".json")
			if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil { //nolint:gosec // Grafana runs as another user
				return err
			}
		}
	}
	return nil
}
