package replay

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Size of one panel, and of what is around its axes.
const (
	panelWidth, panelHeight = 520, 340
	left, right, top, foot  = 56, 130, 34, 44
)

// WritePlot draws slack against shortfall as SVG, a panel for each set of CPU
// traces but those with other constants. Shortfall is on a scale of powers of ten, which begins with 0.
func WritePlot(w io.Writer, rows []Row) error {
	var sets [][]Row
	for _, r := range rows {
		if r.Memory || strings.HasSuffix(r.Set, "other constants") {
			continue
		}
		if n := len(sets); n == 0 || sets[n-1][0].Set+sets[n-1][0].Look != r.Set+r.Look {
			sets = append(sets, nil)
		}
		sets[len(sets)-1] = append(sets[len(sets)-1], r)
	}
	const columns = 2
	lines := (len(sets) + columns - 1) / columns
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n",
		columns*panelWidth, max(lines, 1)*panelHeight)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n")
	for i, set := range sets {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%columns*panelWidth, i/columns*panelHeight)
		panel(&b, set)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// decades from 0.001 % to 100 %.
const lowest, decades = -5, 5

func plotX(slack float64) float64 { return left + slack*(panelWidth-left-right) }

func plotY(short float64) float64 {
	part := 0.0
	if short > 0 {
		part = min(max((math.Log10(short)-lowest)/decades, 0), 1)
	}
	return panelHeight - foot - part*(panelHeight-top-foot)
}

func panel(b *strings.Builder, rows []Row) {
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	line := func(x1, y1, x2, y2 float64, colour string) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
	}
	text(left, top-14, "start", fmt.Sprintf("%s, looked at %s", rows[0].Set, rows[0].Look))
	for i := range 6 {
		slack := float64(i) / 5
		line(plotX(slack), top, plotX(slack), panelHeight-foot, "#ddd")
		text(plotX(slack), panelHeight-foot+14, "middle", fmt.Sprintf("%.0f %%", 100*slack))
	}
	for i := range decades + 1 {
		short := math.Pow10(lowest + i)
		line(left, plotY(short), panelWidth-right, plotY(short), "#ddd")
		most := "" // what is less is drawn there too
		if i == 0 {
			most = "≤ "
		}
		text(left-6, plotY(short)+4, "end", fmt.Sprintf("%s%g %%", most, 100*short))
	}
	text((left+panelWidth-right)/2, panelHeight-10, "middle", "slack: share of the limit that is not used")
	fmt.Fprintf(b, `<text transform="translate(12 %d) rotate(-90)" text-anchor="middle">shortfall</text>`+"\n", panelHeight/2)
	var path []string
	for _, r := range Front(rows) {
		path = append(path, fmt.Sprintf("%.1f,%.1f", plotX(r.Slack), plotY(r.Shortfall)))
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="#888" stroke-dasharray="4 3"/>`+"\n", strings.Join(path, " "))
	for i, r := range rows {
		colour := "#777"
		switch {
		case strings.HasPrefix(r.Policy, "CloudFlash"):
			colour = "#0b6bcb"
		case strings.HasPrefix(r.Policy, "oracle"):
			colour = "#2e7d32"
		}
		// Names are in a list beside the panel: points of good policies are close together.
		y := float64(top + 10 + 15*i)
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`+"\n", plotX(r.Slack), plotY(r.Shortfall), colour)
		text(plotX(r.Slack)+5, plotY(r.Shortfall)-5, "start", fmt.Sprint(i+1))
		fmt.Fprintf(b, `<text x="%d" y="%.1f" fill="%s">%d %s</text>`+"\n", panelWidth-right+8, y, colour, i+1, html.EscapeString(r.Policy))
	}
}
