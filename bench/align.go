package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// align sets lines in columns, each of which is aligned to the left (l) or to the right (r).
func align(kinds string, lines [][]string) string {
	widths := make([]int, len(kinds))
	for _, line := range lines {
		for i, cell := range line {
			if len(line) > 1 { // or it is a heading, which may be longer
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	var b strings.Builder
	for _, line := range lines {
		var l strings.Builder
		for i, cell := range line {
			padding := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(cell), 0))
			if kinds[i] == 'r' {
				l.WriteString(padding + cell + "  ")
			} else {
				l.WriteString(cell + padding + "  ")
			}
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	return b.String()
}

// digits shows three digits, or all before the point.
func digits(x float64) string {
	decimals := 0
	for limit := 100.0; x > 0 && x < limit && decimals < 4; limit /= 10 {
		decimals++
	}
	return strconv.FormatFloat(x, 'f', decimals, 64)
}

func duration(d time.Duration) string {
	if d < time.Second {
		return digits(d.Seconds()*1e3) + " ms"
	}
	return digits(d.Seconds()) + " s"
}

// size shows bytes.
func size(bytes int64) string {
	switch x := float64(bytes); {
	case x >= 1e9:
		return digits(x/1e9) + " GB"
	case x >= 1e6:
		return digits(x/1e6) + " MB"
	case x >= 1e3:
		return digits(x/1e3) + " kB"
	default:
		return count(bytes) + " B"
	}
}

// count shows a number with its thousands apart.
func count(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return count(n/1000) + fmt.Sprintf(",%03d", n%1000)
}
