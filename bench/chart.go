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

// colours are some of those by Okabe and Ito, which colour-blind people tell apart. They differ in lightness too.
var colours = map[group]color.Color{
	groupFloors: color.RGBA{0x99, 0x99, 0x99, 0xff},
	groupOurs:   color.RGBA{0x00, 0x72, 0xb2, 0xff},
	groupPeers:  color.RGBA{0xe6, 0x9f, 0x00, 0xff},
}

// In points.
const (
	chartWidth  = 820
	chartMargin = 100 // above and below the bars, together
	rowHeight   = 20
	barHeight   = 13
	edge        = 10
)

var chartFont = font.Font{Typeface: "Liberation", Variant: "Sans"}

// writeChart draws the CPU times of all rows that have one.
func writeChart(r *report, file string) error {
	b := barsOf(r)
	if len(b) == 0 {
		return fmt.Errorf("drawing %s: nothing was measured", file)
	}
	canvas := vgsvg.NewWith(vgsvg.UseWH(chartWidth, chartMargin+vg.Length(len(b))*rowHeight))
	whole := draw.New(canvas)
	whole.SetColor(color.White) // behind the edges too, for pages that are dark
	whole.Fill(whole.Path())
	b.plot(r.Parameters).Draw(draw.Crop(whole, edge, -edge, edge, -edge))
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return fmt.Errorf("drawing %s: %w", file, err)
	}
	// Few have the font, but most have one of the same widths.
	text := bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return os.WriteFile(file, text, 0o644) //nolint:gosec // for everybody to read
}

type bar struct {
	name  string
	group group
	cpu   time.Duration
}

// bars are in order from below.
type bars []bar

func barsOf(r *report) (b bars) {
	for _, row := range r.Rows {
		if row.measured() {
			b = append(b, bar{row.Name, row.Group, max(row.median().CPU, time.Microsecond)})
		}
	}
	slices.Reverse(b)
	return b
}

func (b bars) plot(of options) *plot.Plot {
	plot.DefaultFont = chartFont
	p := plot.New()
	p.Title.Text = fmt.Sprintf("CPU time of one gather, with %s TCP sockets in %d processes", count(int64(of.Sockets)), of.Processes)
	p.Title.TextStyle.Font.Size = 14
	p.Title.Padding = edge
	names := make([]string, len(b))
	for i, bar := range b {
		names[i] = bar.name
	}
	p.NominalY(names...)
	p.Y.Tick.Label.YAlign = -0.6 // as high as the bars
	p.X.Label.Text = "user + system, on a logarithmic axis"
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = plot.TickerFunc(powersOfTen)
	p.Add(grid{}, b)
	for _, of := range []group{groupFloors, groupOurs, groupPeers} {
		if slices.ContainsFunc(b, func(b bar) bool { return b.group == of }) {
			p.Legend.Add(string(of), swatch{colours[of]})
		}
	}
	p.Legend.Top = true
	p.Legend.Padding = 3
	p.Legend.YPosition = draw.PosCenter
	return p
}

// DataRange leaves room for the numbers at the bars.
func (b bars) DataRange() (xmin, xmax, ymin, ymax float64) {
	shortest := slices.MinFunc(b, func(a, b bar) int { return int(a.cpu - b.cpu) }).cpu.Seconds()
	longest := slices.MaxFunc(b, func(a, b bar) int { return int(a.cpu - b.cpu) }).cpu.Seconds()
	return math.Pow(10, math.Floor(math.Log10(shortest/1.5))), longest * 3, -0.6, float64(len(b)) - 0.4
}

// Plot draws the bars, with their numbers.
func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	number := p.X.Tick.Label
	number.XAlign, number.YAlign = draw.XLeft, draw.YCenter
	for i, bar := range b {
		end, middle := x(bar.cpu.Seconds()), y(float64(i))
		c.FillPolygon(colours[bar.group], []vg.Point{
			{X: c.Min.X, Y: middle - barHeight/2}, {X: end, Y: middle - barHeight/2},
			{X: end, Y: middle + barHeight/2}, {X: c.Min.X, Y: middle + barHeight/2},
		})
		c.FillText(number, vg.Point{X: end + 4, Y: middle + 1.5}, duration(bar.cpu))
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

// grid is a line at each power of ten.
type grid struct{}

// Plot draws the lines.
func (grid) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	style := draw.LineStyle{Color: color.Gray{0xdd}, Width: 0.5}
	for _, tick := range powersOfTen(p.X.Min, p.X.Max) {
		c.StrokeLine2(style, x(tick.Value), c.Min.Y, x(tick.Value), c.Max.Y)
	}
}

// swatch shows a colour in the legend.
type swatch struct{ color.Color }

// Thumbnail fills the room that there is.
func (s swatch) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(s.Color, []vg.Point{
		{X: c.Min.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Min.Y}, {X: c.Max.X, Y: c.Max.Y}, {X: c.Min.X, Y: c.Max.Y},
	})
}
