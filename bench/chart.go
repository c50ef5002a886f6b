package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// groupColours are from the palette of Okabe and Ito, which colour-blind readers can distinguish. They differ in lightness too.
var groupColours = map[group]color.Color{
	groupFloors: color.RGBA{0x99, 0x99, 0x99, 0xff},
	groupOurs:   color.RGBA{0x00, 0x72, 0xb2, 0xff},
	groupPeers:  color.RGBA{0xe6, 0x9f, 0x00, 0xff},
}

// Sizes in points.
const (
	chartWidth  = 820
	chartMargin = 100 // sum of the margins above and below the bars
	rowHeight   = 20
	barHeight   = 13
	edge        = 10
)

var chartFont = font.Font{Typeface: "Liberation", Variant: "Sans"}

// writeChart draws the CPU times of all measured rows.
func writeChart(r *report, file string) error {
	b := newBars(r)
	if len(b) == 0 {
		return fmt.Errorf("drawing %s: nothing was measured", file)
	}
	canvas := vgsvg.NewWith(vgsvg.UseWH(chartWidth, chartMargin+vg.Length(len(b))*rowHeight))
	background := draw.New(canvas)
	background.SetColor(color.White) // the margins too, for pages with a dark background
	background.Fill(background.Path())
	b.plot(r.Parameters).Draw(draw.Crop(background, edge, -edge, edge, -edge))
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return fmt.Errorf("drawing %s: %w", file, err)
	}
	// Few systems have the font. Most have one of the fallbacks, which have the same glyph widths.
	text := bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return os.WriteFile(file, text, 0o644) //nolint:gosec // world-readable on purpose
}

type bar struct {
	name  string
	group group
	cpu   time.Duration
}

// bars are ordered from bottom to top.
type bars []bar

func newBars(r *report) (b bars) {
	for _, row := range r.Rows {
		if row.measured() {
			b = append(b, bar{row.Name, row.Group, max(row.median().CPU, time.Microsecond)})
		}
	}
	slices.Reverse(b)
	return b
}

func (b bars) plot(opts options) *plot.Plot {
	plot.DefaultFont = chartFont
	p := plot.New()
	p.Title.Text = fmt.Sprintf("CPU time of one gather, with %s TCP sockets in %d processes",
		formatCount(int64(opts.Sockets)), opts.Processes)
	p.Title.TextStyle.Font.Size = 14
	p.Title.Padding = edge
	names := make([]string, len(b))
	for i, bar := range b {
		names[i] = bar.name
	}
	p.NominalY(names...)
	p.Y.Tick.Label.YAlign = -0.6 // centred on the bars
	p.X.Label.Text = "user + system, on a logarithmic axis"
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = plot.TickerFunc(powersOfTen)
	p.Add(grid{}, b)
	for _, opts := range []group{groupFloors, groupOurs, groupPeers} {
		if slices.ContainsFunc(b, func(b bar) bool { return b.group == opts }) {
			p.Legend.Add(string(opts), swatch{groupColours[opts]})
		}
	}
	p.Legend.Top = true
	p.Legend.Padding = 3
	p.Legend.YPosition = draw.PosCenter
	return p
}

// DataRange leaves space for the numbers beside the bars.
func (b bars) DataRange() (xmin, xmax, ymin, ymax float64) {
	shortest := slices.MinFunc(b, func(a, b bar) int { return int(a.cpu - b.cpu) }).cpu.Seconds()
	longest := slices.MaxFunc(b, func(a, b bar) int { return int(a.cpu - b.cpu) }).cpu.Seconds()
	return math.Pow(10, math.Floor(math.Log10(shortest/1.5))), longest * 3, -0.6, float64(len(b)) - 0.4
}

// Plot draws the bars and their numbers.
func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	number := p.X.Tick.Label
	number.XAlign, number.YAlign = draw.XLeft, draw.YCenter
	for i, bar := range b {
		end, middle := x(bar.cpu.Seconds()), y(float64(i))
		c.FillPolygon(groupColours[bar.group], []vg.Point{
			{X: c.Min.X, Y: middle - barHeight/2}, {X: end, Y: middle - barHeight/2},
			{X: end, Y: middle + barHeight/2}, {X: c.Min.X, Y: middle + barHeight/2},
		})
		c.FillText(number, vg.Point{X: end + 4, Y: middle + 1.5}, formatDuration(bar.cpu))
	}
}

func powersOfTen(low, high float64) (ticks []plot.Tick) {
	for x := math.Pow(10, math.Ceil(math.Log10(low)-1e-9)); x <= high; x *= 10 {
		ticks = append(ticks, plot.Tick{Value: x, Label: powerOfTen(x)})
	}
	return ticks
}

func powerOfTen(seconds float64) string {
	switch {
	case seconds < 0.9e-3:
		return fmt.Sprintf("%.0f µs", seconds*1e6)
	case seconds < 0.9:
		return fmt.Sprintf("%.0f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.0f s", seconds)
}

// grid draws a line at each power of ten.
type grid struct{}

// Plot implements plot.Plotter.
func (grid) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	style := draw.LineStyle{Color: color.Gray{0xdd}, Width: 0.5}
	for _, tick := range powersOfTen(p.X.Min, p.X.Max) {
		c.StrokeLine2(style, x(tick.Value), c.Min.Y, x(tick.Value), c.Max.Y)
	}
}

// swatch is a colour in the legend.
type swatch struct{ color.Color }

// Thumbnail fills the canvas with the colour.
func (s swatch) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(s.Color, []vg.Point{
		{X: c.Min.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Max.Y}, {X: c.Min.X, Y: c.Max.Y},
	})
}
