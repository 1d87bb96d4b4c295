package cli

import (
	"encoding/json"
	"fmt"
	"strconv"

	"cloudflash/agent"
	"github.com/spf13/cobra"
)

func (a *app) autoscaleEvents() *cobra.Command {
	var follow bool
	var since uint64
	c := &cobra.Command{Use: "events [VM]", Short: "Show what was decided, why, and what it did", Args: atMost(1, "one VM"), ValidArgsFunction: a.completeVMs,
		Example: "  cloudflash autoscale events web -o wide\n  cloudflash autoscale events -f",
		RunE: func(c *cobra.Command, args []string) error {
			query := ofVM(args)
			query.Set("since", strconv.FormatUint(since, 10))
			if follow {
				return a.follow(c.Context(), "/autoscale/events", query, a.decided)
			}
			all, err := sequence[agent.Decision](c.Context(), a.client(), "/autoscale/events", query)
			if err != nil {
				return err
			}
			return printList(a, all, func(d agent.Decision) string { return strconv.FormatUint(d.Seq, 10) }, decisionColumns)
		}}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as they happen")
	c.Flags().Uint64Var(&since, "since", 0, "only decisions after this number")
	return c
}

var decisionColumns = []column[agent.Decision]{
	{"SEQ", false, func(d agent.Decision) string { return strconv.FormatUint(d.Seq, 10) }},
	{"TIME", false, func(d agent.Decision) string { return d.At.Local().Format("15:04:05.000") }},
	{"VM", false, func(d agent.Decision) string { return d.VMName }},
	{"RESOURCE", false, func(d agent.Decision) string { return shortName(d.Resource) }},
	{"ACTION", false, func(d agent.Decision) string { return d.Action }},
	{"FROM", false, func(d agent.Decision) string { return fromText(d) }},
	{"TO", false, func(d agent.Decision) string { return toText(d) }},
	{"RESULT", false, func(d agent.Decision) string { return string(d.Result) }},
	{"REASON", false, func(d agent.Decision) string { return d.Reason }},
	{"WHY", true, func(d agent.Decision) string { return d.Why }},
	{"USE", true, func(d agent.Decision) string { return amount(d.Resource, d.Use) }},
	{"SIGNAL", true, func(d agent.Decision) string {
		return fmt.Sprintf("%s %s, limit %s", d.Signal, figures(d.Value), figures(d.Limit))
	}},
	{"KERNEL", true, func(d agent.Decision) string {
		if d.KernelSeconds == 0 {
			return ""
		}
		return fmt.Sprintf("%.0f ms", d.KernelSeconds*1000)
	}},
	{"EFFECT", true, func(d agent.Decision) string {
		if d.Effect == nil {
			return ""
		}
		return d.Effect.Text
	}},
}

func fromText(d agent.Decision) string { return twoLimits(d.Resource, d.From, d.HighFrom) }
func toText(d agent.Decision) string   { return twoLimits(d.Resource, d.To, d.HighTo) }

// twoLimits are memory.max and, where it is set, memory.high; other resources have
// one.
func twoLimits(resource string, v, high float64) string {
	if high == 0 {
		return limit(resource, v)
	}
	return limit(resource, v) + " (high " + amount(resource, high) + ")"
}

// decided prints one decision of the stream.
func (a *app) decided(data string) error {
	var d agent.Decision
	if err := json.Unmarshal([]byte(data), &d); err != nil {
		return fmt.Errorf("decode a decision: %w", err)
	}
	why := ""
	if d.Why != "" {
		why = " (" + d.Why + ")"
	}
	_, err := fmt.Fprintf(a.Out, "%s  %s  %s\n", d.At.Local().Format("15:04:05.000"), clean(d.VMName), clean(fmt.Sprintf("%s %s → %s, %s: %s%s",
		shortName(d.Resource), fromText(d), toText(d), d.Result, d.Reason, why)))
	return err
}
