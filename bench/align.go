package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// align formats lines as columns. kinds has a letter for each column: l aligns it left, r right.
func align(kinds string, lines [][]string) string {
	widths := make([]int, len(kinds))
	for _, line := range lines {
		for i, cell := range line {
			if len(line) > 1 { // a line of one cell is a heading, which may be wider than the column
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	var b strings.Builder
	for _, line := range lines {
		var row strings.Builder
		for i, cell := range line {
			padding := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(cell), 0))
			if kinds[i] == 'r' {
				row.WriteString(padding + cell + "  ")
			} else {
				row.WriteString(cell + padding + "  ")
			}
		}
		b.WriteString(strings.TrimRight(row.String(), " ") + "\n")
	}
	return b.String()
}

// formatDigits formats three significant digits, or all digits before the decimal point if there are more.
func formatDigits(x float64) string {
	decimals := 0
	for limit := 100.0; x > 0 && x < limit && decimals < 4; limit /= 10 {
		decimals++
	}
	return strconv.FormatFloat(x, 'f', decimals, 64)
}

func formatDuration(d time.Duration) string {
	if d < time.Second {
		return formatDigits(d.Seconds()*1e3) + " ms"
	}
	return formatDigits(d.Seconds()) + " s"
}

func formatBytes(bytes int64) string {
	switch x := float64(bytes); {
	case x >= 1e9:
		return formatDigits(x/1e9) + " GB"
	case x >= 1e6:
		return formatDigits(x/1e6) + " MB"
	case x >= 1e3:
		return formatDigits(x/1e3) + " kB"
	default:
		return formatCount(bytes) + " B"
	}
}

// formatCount formats a number with thousands separators.
func formatCount(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return formatCount(n/1000) + fmt.Sprintf(",%03d", n%1000)
}
