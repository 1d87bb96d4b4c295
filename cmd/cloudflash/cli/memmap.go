package cli

import (
	"fmt"
	"slices"
	"strings"

	"cloudflash/agent"
	"cloudflash/agent/pages"
	"cloudflash/cmd/quantity"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (a *app) memMapCommand() *cobra.Command {
	var from, span int64
	var cells int
	var owner, mode string
	c := &cobra.Command{Use: "map", Short: "Draw the map of pages, the whole host or down to single pages", Args: exactly(0, "no arguments"),
		Example: "  cloudflash mem map\n  cloudflash mem map --mode owner\n  cloudflash mem map --from 1048576 --span 512 --cells 512 -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			if mode != "state" && mode != "owner" {
				return usage("--mode must be state or owner, not %q", mode)
			}
			var m pages.MemoryMap
			if err := a.client().get(c.Context(), "/memory/map", mapQuery(from, span, cells, owner), &m); err != nil {
				return err
			}
			if a.output == "table" || a.output == "wide" {
				names, err := a.ownerNames(c, mode)
				if err == nil {
					a.drawMap(m, mode, names)
				}
				return err
			}
			if a.output == "json" || a.output == "yaml" {
				return printOne(a, m, nil, nil)
			}
			return printList(a, m.Cells, func(c pages.MemoryCell) string { return integer(c.First) }, cellColumns)
		}}
	c.Flags().Int64Var(&from, "from", 0, "first page frame")
	c.Flags().Int64Var(&span, "span", 0, "page frames to show; 0 for all from there on")
	c.Flags().IntVar(&cells, "cells", 1024, "cells to draw, at most 4096")
	c.Flags().StringVar(&owner, "owner", "", "VM, host or deleted, whose pages each cell counts apart")
	c.Flags().StringVar(&mode, "mode", "state", "state or owner")
	return c
}

var cellColumns = []column[pages.MemoryCell]{
	{"FIRST", false, func(c pages.MemoryCell) string { return integer(c.First) }},
	{"FREE", false, func(c pages.MemoryCell) string { return integer(c.Free) }},
	{"USED", false, func(c pages.MemoryCell) string { return integer(c.Used) }},
	{"FRAGMENTED", false, func(c pages.MemoryCell) string { return integer(c.Fragmented) }},
	{"ABSENT", false, func(c pages.MemoryCell) string { return integer(c.Absent) }},
	{"UNINITIALISED", false, func(c pages.MemoryCell) string { return integer(c.Uninitialised) }},
	{"UNKNOWN", false, func(c pages.MemoryCell) string { return integer(c.Unknown) }},
	{"UNMOVABLE", false, func(c pages.MemoryCell) string { return integer(c.Unmovable) }},
	{"LARGEST_FREE_RUN", false, func(c pages.MemoryCell) string { return integer(c.LargestFreeRun) }},
	{"OWNED", false, func(c pages.MemoryCell) string { return integer(c.Owned) }},
	{"OWNER", false, func(c pages.MemoryCell) string {
		if len(c.Owners) == 0 {
			return ""
		}
		return c.Owners[0].Owner
	}},
}

// ownerNames are the names of owners by their id, for the legend.
func (a *app) ownerNames(c *cobra.Command, mode string) (map[string]string, error) {
	names := map[string]string{}
	if mode != "owner" {
		return names, nil
	}
	vms, err := list[agent.VM](c.Context(), a.client(), "/vms", nil)
	for _, v := range vms {
		names[v.ID] = v.Name
	}
	return names, err
}

// brush is how a cell is drawn: a character that tells by itself, and one of the
// 256 colours, near those of the dashboard, that colour-blind people can tell
// apart.
type brush struct {
	char   rune
	colour int
	means  string
}

var (
	brushAbsent  = brush{' ', 0, "absent"}
	brushUnknown = brush{'?', 244, "not scanned"}
	brushUninit  = brush{'-', 244, "not initialised"}
	brushFree    = brush{'.', 66, "free"}
	brushBroken  = brush{'+', 221, "free, fragmented"}
	brushUsed    = brush{'#', 88, "used"}
	brushMovable = brush{'o', 131, "used, movable"}
)

// stateBrush is what a cell shows: the state of most of its pages.
func stateBrush(c pages.MemoryCell) brush {
	kinds := []struct {
		pages int64
		brush
	}{{c.Used, brushUsed}, {c.Free, brushFree}, {c.Uninitialised, brushUninit}, {c.Unknown, brushUnknown}, {c.Absent, brushAbsent}}
	most := kinds[0]
	for _, k := range kinds[1:] {
		if k.pages > most.pages {
			most = k
		}
	}
	switch {
	case most.brush == brushFree && 2*c.Fragmented > c.Free:
		return brushBroken
	case most.brush == brushUsed && c.Unmovable == 0:
		return brushMovable
	}
	return most.brush
}

// palette gives owners letters in the order they come.
type palette struct {
	names map[string]string
	known []string
}

func (p *palette) brush(c pages.MemoryCell) brush {
	s := stateBrush(c)
	if s != brushUsed && s != brushMovable || len(c.Owners) == 0 {
		return s
	}
	switch owner := c.Owners[0].Owner; owner {
	case pages.OwnerHost:
		return brush{'h', 250, "the host"}
	case pages.OwnerDeleted:
		return brush{'x', 240, "left by deleted VMs"}
	default:
		i := slices.Index(p.known, owner)
		if i < 0 {
			i = len(p.known)
			p.known = append(p.known, owner)
		}
		name := p.names[owner]
		if name == "" {
			name = owner
		}
		colours := []int{32, 208, 79, 227, 26, 202, 176} // Okabe and Ito's
		return brush{rune('A' + i%26), colours[i%len(colours)], "VM " + name}
	}
}

// drawMap draws one character for each cell.
func (a *app) drawMap(m pages.MemoryMap, mode string, names map[string]string) {
	width := a.columns()
	paint := stateBrush
	if mode == "owner" {
		paint = (&palette{names: names}).brush
	}
	var used []brush
	var b strings.Builder
	for i, c := range m.Cells {
		if i%width == 0 {
			fmt.Fprintf(&b, "%s%10x  ", map[bool]string{true: "\n"}[i > 0], c.First)
		}
		p := paint(c)
		if !slices.Contains(used, p) {
			used = append(used, p)
		}
		b.WriteString(a.painted(p))
	}
	fmt.Fprintf(&b, "\n\n%s a character, %d pages; frames in hexadecimal\n", quantity.FormatBytes(m.PagesPerCell*int64(m.PageSize)), m.PagesPerCell)
	for _, p := range used {
		fmt.Fprintf(&b, "  %s %s\n", a.painted(p), clean(p.means))
	}
	fmt.Fprint(a.Out, b.String())
}

func (a *app) painted(p brush) string {
	if !a.terminal || p.colour == 0 || a.Env("NO_COLOR") != "" {
		return string(p.char)
	}
	return fmt.Sprintf("\x1b[38;5;%dm%c\x1b[0m", p.colour, p.char)
}

// columns is how many cells fit into a line, a power of two so that the lines
// begin at round frames.
func (a *app) columns() int {
	room := 80
	if a.terminal {
		if size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			room = int(size.Col)
		}
	}
	width := 16
	for width*2 <= room-12 && width < 256 {
		width *= 2
	}
	return width
}
