package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestChart checks that the chart is SVG and has the name and the number of each measured row.
func TestChart(t *testing.T) {
	r := newTestReport(minTargetSockets, passingCPU())
	r.row(rowV1).Name = `<a> & "b"`
	r.row(rowHost).Failed = "failure"
	file := filepath.Join(t.TempDir(), "chart.svg")
	require.NoError(t, writeChart(r, file))
	texts := svgTexts(t, file)
	for _, row := range r.Rows {
		if row.Failed != "" {
			require.NotContains(t, texts, row.Name)
			continue
		}
		require.Contains(t, texts, row.Name)
		require.Contains(t, texts, formatDuration(row.Runs[0].CPU))
	}
	for _, want := range []string{"floors", "procnetstat", "peers", "10 ms", "100 ms", "1 s", "10 s"} {
		require.Contains(t, texts, want)
	}
}

// svgTexts returns the contents of the text elements of an SVG file.
func svgTexts(t *testing.T, file string) (texts []string) {
	t.Helper()
	svg, err := os.Open(file)
	require.NoError(t, err)
	defer svg.Close()
	decoder := xml.NewDecoder(svg)
	var within []string
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, texts)
			return texts
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			within = append(within, token.Name.Local)
			require.Equal(t, "svg", within[0])
			require.Equal(t, "http://www.w3.org/2000/svg", token.Name.Space)
		case xml.EndElement:
			within = within[:len(within)-1]
		case xml.CharData:
			if text := strings.TrimSpace(string(token)); text != "" && within[len(within)-1] == "text" {
				texts = append(texts, text)
			}
		}
	}
}

func TestChartWithoutRows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "chart.svg")
	require.EqualError(t, writeChart(newTestReport(minTargetSockets, nil), file), "drawing "+file+": nothing was measured")
	require.NoFileExists(t, file)
}

func TestPowersOfTen(t *testing.T) {
	for seconds, want := range map[float64]string{
		1e-6: "1 µs", 1e-4: "100 µs", 1e-3: "1 ms", 0.1: "100 ms", 1: "1 s", 100: "100 s",
	} {
		require.Equal(t, want, powerOfTen(seconds), time.Duration(seconds*1e9))
	}
}
