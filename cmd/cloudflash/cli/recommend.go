package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/advice"
	"cloudflash/agent/autoscale"

	"github.com/spf13/cobra"
)

func (a *app) recommendCommand() *cobra.Command {
	c := &cobra.Command{Use: "recommend [VM]", Short: "Show how VMs should have been asked for, and what ails them", ValidArgsFunction: a.completeVMs,
		Long:    "Show how VMs should have been asked for, and what ails them, going by what they have used. VM may be host.",
		Example: "  cloudflash recommend\n  cloudflash recommend web",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("usage: %s", c.UseLine())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			all, err := a.advice(c, args)
			if err != nil {
				return err
			}
			return a.printAdvice(all, len(args) == 0 && a.output == "table")
		}}
	c.AddCommand(a.recommendApply(), a.recommendUndo())
	return c
}

func (a *app) advice(c *cobra.Command, args []string) ([]advice.Advice, error) {
	if len(args) == 0 {
		return list[advice.Advice](c.Context(), a.client(), "/recommendations", nil)
	}
	one, err := a.adviceFor(c, args[0])
	return []advice.Advice{one}, err
}

func (a *app) adviceFor(c *cobra.Command, name string) (one advice.Advice, err error) {
	return one, a.client().get(c.Context(), "/recommendations/"+ref(name), nil, &one)
}

// printAdvice prints a line for each finding and each number; for programs that take
// things whole, one thing for each VM. In short, a VM of which little is known yet is
// one line.
func (a *app) printAdvice(all []advice.Advice, short bool) error {
	if a.output == "json" || a.output == "jsonl" || a.output == "yaml" || a.output == "name" {
		return printList(a, all, func(v advice.Advice) string { return v.VMName }, nil)
	}
	var lines []adviceLine
	for i := range all {
		v := &all[i]
		for j := range v.Findings {
			lines = append(lines, adviceLine{v: v, found: &v.Findings[j]})
		}
		if short && len(v.Recommendations) > 1 && !slices.ContainsFunc(v.Recommendations,
			func(r advice.Recommendation) bool { return r.Worth || sure(&r) }) {
			lines = append(lines, adviceLine{v: v})
			continue
		}
		for j := range v.Recommendations {
			lines = append(lines, adviceLine{v: v, rec: &v.Recommendations[j]})
		}
	}
	if len(lines) == 0 && a.output == "table" {
		fmt.Fprintln(a.Err, "nothing to recommend yet")
		return nil
	}
	return printList(a, lines, func(l adviceLine) string { return l.v.VMName }, adviceColumns)
}

// adviceLine is one recommendation or one finding, or says that there is none yet.
type adviceLine struct {
	v     *advice.Advice
	rec   *advice.Recommendation
	found *advice.Finding
}

// number is empty in the line of a finding.
func (l adviceLine) number(v func(*advice.Recommendation) float64) string {
	if l.rec == nil {
		return ""
	}
	return difference(l.rec.Resource, v(l.rec))
}

// sure reports whether enough is known to name a number without a warning.
func sure(r *advice.Recommendation) bool {
	rec := autoscale.Recommendation{Confidence: r.Confidence}
	return rec.Sure()
}

var adviceColumns = []column[adviceLine]{
	{"VM", false, func(l adviceLine) string { return l.v.VMName }},
	{"ABOUT", false, func(l adviceLine) string {
		switch {
		case l.found != nil:
			return l.found.Kind
		case l.rec == nil:
			return "all"
		}
		return shortName(l.rec.Resource)
	}},
	{"SPEC", false, func(l adviceLine) string { return l.number(func(r *advice.Recommendation) float64 { return r.Spec }) }},
	{"TARGET", false, func(l adviceLine) string {
		target := l.number(func(r *advice.Recommendation) float64 { return r.Target })
		if l.rec != nil && !sure(l.rec) {
			return target + "?"
		}
		return target
	}},
	{"LOWER", true, func(l adviceLine) string { return l.number(func(r *advice.Recommendation) float64 { return r.Lower }) }},
	{"UPPER", true, func(l adviceLine) string { return l.number(func(r *advice.Recommendation) float64 { return r.Upper }) }},
	{"SAVES", false, func(l adviceLine) string { return l.number(func(r *advice.Recommendation) float64 { return r.Saves }) }},
	{"CONFIDENCE", true, func(l adviceLine) string {
		if l.rec == nil {
			return ""
		}
		return percent(&l.rec.Confidence)
	}},
	{"TAKE", false, func(l adviceLine) string {
		switch {
		case l.found != nil:
			return ""
		case l.rec == nil:
			return "wait"
		case l.rec.Worth:
			return "yes"
		case !sure(l.rec):
			return "wait"
		}
		return "no"
	}},
	{"SAYS", false, func(l adviceLine) string {
		switch {
		case l.found != nil:
			return l.found.Text
		case l.rec == nil:
			return littleKnown(l.v) + "; cloudflash recommend " + l.v.VMName + " shows what it speaks for so far"
		case !sure(l.rec) && !l.rec.Worth:
			return littleKnown(l.v)
		}
		return l.rec.Reason
	}},
	{"TEMPLATE", true, func(l adviceLine) string { return l.v.Template }},
	{"ID", true, func(l adviceLine) string { return l.v.VM }},
}

func littleKnown(v *advice.Advice) string {
	return "little is known yet: " + autoscale.Span(time.Duration(v.HistorySeconds*float64(time.Second))) + " of history"
}

// difference writes an amount that may be below nothing.
func difference(resource string, v float64) string {
	if v < 0 {
		return "-" + amount(resource, -v)
	}
	return amount(resource, v)
}

func (a *app) recommendApply() *cobra.Command {
	return &cobra.Command{Use: "apply VM [RESOURCE]...", Short: "Give a VM what is advised; named resources however little is known", Args: atLeast(1, "a VM"), ValidArgsFunction: a.completeAdvice,
		Example: "  cloudflash recommend apply web\n  cloudflash recommend apply web cpus memory",
		RunE: func(c *cobra.Command, args []string) error {
			var body any
			if len(args) > 1 {
				body = map[string]any{"resources": longNames(args[1:])}
			}
			var v agent.VM
			if err := a.client().call(c.Context(), "POST", "/recommendations/"+ref(args[0])+"/actions/apply", nil, body, &v); err != nil {
				return err
			}
			advice, err := a.adviceFor(c, v.ID)
			if err != nil {
				return err
			}
			return a.printTaken(v, advice.Applied, "cloudflash recommend undo "+v.Name+" takes it back")
		}}
}

func (a *app) recommendUndo() *cobra.Command {
	return &cobra.Command{Use: "undo VM", Short: "Give a VM back what it had before advice was taken last", Args: exactly(1, "a VM"), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			advice, err := a.adviceFor(c, args[0])
			if err != nil {
				return err
			}
			var v agent.VM
			if err := a.client().call(c.Context(), "POST", "/recommendations/"+ref(args[0])+"/actions/undo", nil, nil, &v); err != nil {
				return err
			}
			if t := advice.Applied; t != nil {
				t.From, t.To = t.To, t.From
			}
			return a.printTaken(v, advice.Applied, "")
		}}
}

// taken is one number of a spec that has changed.
type taken struct {
	Resource string
	From, To float64
}

// printTaken says what has changed, or prints the VM.
func (a *app) printTaken(v agent.VM, t *agent.AppliedAdvice, hint string) error {
	if (a.output != "table" && a.output != "wide") || t == nil {
		return printOne(a, v, vmName, vmColumns)
	}
	for _, c := range changes(t.From, t.To) {
		what := "saves " + amount(c.Resource, c.From-c.To)
		if c.To > c.From {
			what = "takes " + amount(c.Resource, c.To-c.From) + " more"
		}
		fmt.Fprintf(a.Out, "%s %s %s → %s, %s\n", clean(v.Name), shortName(c.Resource), amount(c.Resource, c.From), amount(c.Resource, c.To), what)
	}
	if hint != "" {
		fmt.Fprintln(a.Err, clean(hint))
	}
	return nil
}

func changes(from, to agent.Spec) []taken {
	n := func(v int64) float64 { return float64(v) }
	all := []taken{
		{autoscale.CPU.String(), from.CPUs, to.CPUs},
		{autoscale.Memory.String(), n(from.MemoryBytes), n(to.MemoryBytes)},
		{autoscale.Storage.String(), n(from.StorageBytes), n(to.StorageBytes)},
		{autoscale.Bandwidth.String(), n(from.BandwidthBPS), n(to.BandwidthBPS)},
		{autoscale.ReadBPS.String(), n(from.IO.ReadBPS), n(to.IO.ReadBPS)},
		{autoscale.WriteBPS.String(), n(from.IO.WriteBPS), n(to.IO.WriteBPS)},
		{autoscale.ReadIOPS.String(), n(from.IO.ReadIOPS), n(to.IO.ReadIOPS)},
		{autoscale.WriteIOPS.String(), n(from.IO.WriteIOPS), n(to.IO.WriteIOPS)},
	}
	return slices.DeleteFunc(all, func(c taken) bool { return c.From == c.To })
}

// longNames are the resources that people mean; the agent says what it does not know.
func longNames(names []string) []string {
	long := make([]string, len(names))
	for i, name := range names {
		long[i] = name
		if n, ok := longName(name); ok {
			long[i] = n
		}
	}
	return long
}

// completeAdvice offers VMs, then resources.
func (a *app) completeAdvice(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeVMs(c, args, prefix)
	}
	var names []string
	for _, n := range scaledNames {
		if !slices.Contains(args[1:], n[1]) && strings.HasPrefix(n[1], prefix) {
			names = append(names, n[1])
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
