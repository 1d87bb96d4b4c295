package cli

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/pages"
	"cloudflash/cmd/quantity"

	"github.com/spf13/cobra"
)

func (a *app) memCommand() *cobra.Command {
	return group("mem", "Show what the host's memory pages are used for", a.memSummaryCommand(), a.memMapCommand(), a.memOwnersCommand(),
		a.memProcessesCommand(), a.memScanCommand())
}

func (a *app) memSummaryCommand() *cobra.Command {
	return &cobra.Command{Use: "summary", Short: "Show the sums: free, used, fragmented pages and how they reconcile", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			var m pages.Memory
			if err := a.client().get(c.Context(), "/memory", nil, &m); err != nil {
				return err
			}
			if a.output == "table" || a.output == "wide" {
				a.describeMemory(m)
				return nil
			}
			return printOne(a, m, func(pages.Memory) string { return "memory" }, []column[pages.Memory]{
				{"TOTAL_PAGES", false, func(m pages.Memory) string { return integer(m.TotalPages) }},
				{"FREE_PAGES", false, func(m pages.Memory) string { return integer(m.FreePages) }},
				{"USED_PAGES", false, func(m pages.Memory) string { return integer(m.UsedPages) }},
				{"FRAGMENTED_PAGES", false, func(m pages.Memory) string { return integer(m.FragmentedPages) }},
				{"UNINITIALISED_PAGES", false, func(m pages.Memory) string { return integer(m.UninitialisedPages) }},
				{"ABSENT_PAGES", false, func(m pages.Memory) string { return integer(m.AbsentPages) }},
				{"RESIDUAL_PAGES", false, func(m pages.Memory) string { return integer(m.ResidualPages) }},
				{"FRAGMENTATION_RATIO", false, func(m pages.Memory) string { return ratio(m.FragmentationRatio) }},
				{"FREE_HUGE_BLOCKS", false, func(m pages.Memory) string { return integer(m.FreeHugeBlocks) }},
			})
		}}
}

func (a *app) describeMemory(m pages.Memory) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(a.Out, "%-15s%s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	pages := func(name string, n int64, note string) {
		row(name, "%12d pages  %9s%s", n, quantity.FormatBytes(n*int64(m.PageSize)), note)
	}
	pages("total", m.TotalPages, "")
	pages("used", m.UsedPages, fmt.Sprintf("  of it %s kept at boot", quantity.FormatBytes(m.ReservedPages*int64(m.PageSize))))
	pages("free", m.FreePages, "")
	pages("  fragmented", m.FragmentedPages, "  in blocks smaller than "+quantity.FormatBytes(m.HugeBlockBytes))
	pages("uninitialised", m.UninitialisedPages, "")
	pages("absent", m.AbsentPages, "  holes between the parts of memory")
	row("residual", "%12d pages of MemFree are in none of these", m.ResidualPages)
	if m.FragmentationRatio != nil {
		worst := ""
		if w := m.WorstZone; w != nil {
			worst = fmt.Sprintf("; worst: node %d %s, %s", w.Node, w.Zone, percent(&w.FragmentationRatio))
		}
		row("fragmentation", "%s of %s free is of no use for a huge page%s", percent(m.FragmentationRatio), quantity.FormatBytes(m.FreeBytes), worst)
	}
	row("huge pages", "%d of %s could be had now", m.FreeHugeBlocks, quantity.FormatBytes(m.HugeBlockBytes))
	if m.CompactableRatio != nil {
		row("compactable", "%s of all blocks of that size hold nothing that cannot be moved", percent(m.CompactableRatio))
	}
	row("scan", "%s", describeScan(m.Scan))
}

func describeScan(s pages.MemoryScan) string {
	text := s.State
	if s.Reason != "" {
		return text + ": " + s.Reason
	}
	if s.Full != nil {
		return fmt.Sprintf("full, %.0f %% done", s.Full.Progress*100)
	}
	if s.AgeSeconds != nil {
		text += fmt.Sprintf(", last whole pass %s ago", (time.Duration(*s.AgeSeconds) * time.Second).String())
	}
	return text + fmt.Sprintf(", %.2f %% of a core of %.2f %% allowed", s.CPURatio*100, s.BudgetRatio*100)
}

func (a *app) memOwnersCommand() *cobra.Command {
	return &cobra.Command{Use: "owners", Short: "List who has how many pages, and how scattered", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			var out struct {
				Owners []pages.MemoryOwner `json:"owners"`
			}
			if err := a.client().get(c.Context(), "/memory/owners", nil, &out); err != nil {
				return err
			}
			if err := printList(a, out.Owners, func(o pages.MemoryOwner) string { return o.Name }, ownerColumns); err != nil {
				return err
			}
			return a.sayAge(c.Context())
		}}
}

// sayAge tells, below a table, from when the pages in it are.
func (a *app) sayAge(ctx context.Context) error {
	var m pages.Memory
	if a.output != "table" && a.output != "wide" {
		return nil
	}
	if err := a.client().get(ctx, "/memory", nil, &m); err != nil {
		return err
	}
	if m.Scan.AgeSeconds == nil {
		fmt.Fprintln(a.Err, "not all pages have been scanned yet: mem scan does it now")
		return nil
	}
	fmt.Fprintf(a.Err, "pages as of the last whole scan, which ended %s ago; what changed since is in RESIDUAL; mem scan counts anew\n", span(time.Duration(*m.Scan.AgeSeconds*float64(time.Second))))
	return nil
}

var ownerColumns = []column[pages.MemoryOwner]{
	{"OWNER", false, func(o pages.MemoryOwner) string { return o.Name }},
	{"PAGES", false, func(o pages.MemoryOwner) string { return integer(o.Pages) }},
	{"BYTES", false, func(o pages.MemoryOwner) string { return quantity.FormatBytes(o.Bytes) }},
	{"HUGE", false, func(o pages.MemoryOwner) string { return percent(o.HugeRatio) }},
	{"SCATTER", false, func(o pages.MemoryOwner) string { return percent(o.ScatterRatio) }},
	{"RESIDENT", false, func(o pages.MemoryOwner) string { return quantity.FormatBytes(o.ResidentBytes) }},
	{"CHARGED", false, func(o pages.MemoryOwner) string { return quantity.FormatBytes(o.MemoryBytes) }},
	{"UNMAPPED", true, func(o pages.MemoryOwner) string { return quantity.FormatBytes(o.UnmappedBytes) }},
	{"RESIDUAL", false, func(o pages.MemoryOwner) string { return quantity.FormatBytes(o.ResidualBytes) }},
	{"ID", true, func(o pages.MemoryOwner) string { return o.Owner }},
}

func (a *app) memProcessesCommand() *cobra.Command {
	return &cobra.Command{Use: "processes VM [PID]", Short: "List the processes of a VM by their memory, or the mappings of one", ValidArgsFunction: a.completeVMs,
		Example: "  cloudflash mem processes web\n  cloudflash mem processes web 4711",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usage("usage: %s", c.UseLine())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			path := "/memory/owners/" + ref(args[0]) + "/processes"
			if len(args) == 2 {
				return a.mappings(c, path+"/"+ref(args[1]))
			}
			var out struct {
				Processes []pages.MemoryProcess `json:"processes"`
			}
			if err := a.client().get(c.Context(), path, nil, &out); err != nil {
				return err
			}
			return printList(a, out.Processes, func(p pages.MemoryProcess) string { return strconv.Itoa(p.PID) }, []column[pages.MemoryProcess]{
				{"PID", false, func(p pages.MemoryProcess) string { return strconv.Itoa(p.PID) }},
				{"NAME", false, func(p pages.MemoryProcess) string { return p.Name }},
				{"CLOUDLET", false, func(p pages.MemoryProcess) string { return p.Scope }},
				{"RESIDENT", false, func(p pages.MemoryProcess) string { return quantity.FormatBytes(p.ResidentBytes) }},
			})
		}}
}

// mappings shows what one process has mapped.
func (a *app) mappings(c *cobra.Command, path string) error {
	var p pages.MemoryProcess
	if err := a.client().get(c.Context(), path, nil, &p); err != nil {
		return err
	}
	if a.output == "json" || a.output == "yaml" {
		return printOne(a, p, nil, nil)
	}
	return printList(a, p.Mappings, func(m pages.MemoryMapping) string { return m.Start }, []column[pages.MemoryMapping]{
		{"START", false, func(m pages.MemoryMapping) string { return m.Start }},
		{"PAGES", false, func(m pages.MemoryMapping) string { return integer(m.Pages) }},
		{"PRESENT", false, func(m pages.MemoryMapping) string { return integer(m.Present) }},
		{"SWAPPED", true, func(m pages.MemoryMapping) string { return integer(m.Swapped) }},
		{"EXCLUSIVE", false, func(m pages.MemoryMapping) string { return integer(m.Exclusive) }},
		{"HUGE", false, func(m pages.MemoryMapping) string { return integer(m.HugePages) }},
		{"RUNS", true, func(m pages.MemoryMapping) string { return integer(m.Runs) }},
		{"PERMISSIONS", true, func(m pages.MemoryMapping) string { return m.Permissions }},
		{"NAME", false, func(m pages.MemoryMapping) string { return m.Name }},
	})
}

func (a *app) memScanCommand() *cobra.Command {
	var noWait, cancel bool
	c := &cobra.Command{Use: "scan", Short: "Scan all pages now, not at the pace of the budget", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client := a.client()
			if cancel {
				return client.call(c.Context(), "DELETE", "/memory/scan", nil, nil, nil)
			}
			var op agent.Operation
			if err := client.call(c.Context(), "POST", "/memory/scan", nil, nil, &op); err != nil || noWait {
				return err
			}
			began := time.Now()
			if err := a.await(c.Context(), client, op); err != nil {
				return err
			}
			fmt.Fprintf(a.Err, "all pages scanned in %.1f s\n", time.Since(began).Seconds())
			return nil
		}}
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is done")
	c.Flags().BoolVar(&cancel, "cancel", false, "cancel the scan that is under way")
	return c
}

func integer(n int64) string { return strconv.FormatInt(n, 10) }

func ratio(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', 4, 64)
}

func percent(v *float64) string {
	if v == nil || math.IsNaN(*v) {
		return "-"
	}
	return strconv.FormatFloat(*v*100, 'f', 1, 64) + " %"
}

// mapQuery is what of the map is asked for.
func mapQuery(from, span int64, cells int, owner string) url.Values {
	q := url.Values{"from": {integer(from)}, "cells": {strconv.Itoa(cells)}}
	if span > 0 {
		q.Set("span", integer(span))
	}
	if owner != "" {
		q.Set("owner", owner)
	}
	return q
}
