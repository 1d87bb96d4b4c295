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
	{"FROM", false, func(d agent.Decision) string { return limit(d.Resource, d.From) }},
	{"TO", false, func(d agent.Decision) string { return limit(d.Resource, d.To) }},
	{"RESULT", false, func(d agent.Decision) string { return string(d.Result) }},
	{"REASON", false, func(d agent.Decision) string { return d.Reason }},
	{"WHY NOT", true, func(d agent.Decision) string { return d.Why }},
	{"USE", true, func(d agent.Decision) string { return amount(d.Resource, d.Use) }},
	{"SIGNAL", true, func(d agent.Decision) string {
		return fmt.Sprintf("%s %s, limit %s", d.Signal, figures(d.Value), figures(d.Limit))
	}},
	{"HIGH", true, func(d agent.Decision) string {
		if d.HighTo == 0 {
			return ""
		}
		return amount(d.Resource, d.HighFrom) + " → " + amount(d.Resource, d.HighTo)
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
		shortName(d.Resource), limit(d.Resource, d.From), limit(d.Resource, d.To), d.Result, d.Reason, why)))
	return err
}
