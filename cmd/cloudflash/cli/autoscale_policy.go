package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cloudflash/agent"
	"cloudflash/agent/policy"

	"github.com/spf13/cobra"
)

// ruleField is one value of a rule.
type ruleField struct {
	name, json string
	show       func(policy.Rule) string
	// set reads text into a change. An empty text takes the value back.
	set func(c *agent.RuleChange, resource, text string) error
}

// reads makes the set of a field that is at a place and read in a way.
func reads[T any](at func(*agent.RuleChange) **T, read func(resource, text string) (T, error)) func(*agent.RuleChange, string, string) error {
	return func(c *agent.RuleChange, resource, text string) error {
		if text == "" {
			*at(c) = nil
			return nil
		}
		v, err := read(resource, text)
		if err == nil {
			*at(c) = &v
		}
		return err
	}
}

func readWord(_, text string) (string, error) { return text, nil }

// ruleFields are all fields, as the table shows them.
var ruleFields = []ruleField{
	{"mode", "mode", func(r policy.Rule) string { return r.Mode }, reads(func(c *agent.RuleChange) **string { return &c.Mode }, readWord)},
	{"up", "up", func(r policy.Rule) string { return share(r.Up) }, reads(func(c *agent.RuleChange) **float64 { return &c.Up }, readShare)},
	{"down", "down", func(r policy.Rule) string { return share(r.Down) },
		reads(func(c *agent.RuleChange) **float64 { return &c.Down }, readShare)},
	{"cooldown", "cooldown_seconds", func(r policy.Rule) string { return seconds(r.CooldownSeconds) },
		reads(func(c *agent.RuleChange) **float64 { return &c.CooldownSeconds }, readSeconds)},
	{"window", "window_seconds", func(r policy.Rule) string { return seconds(r.WindowSeconds) },
		reads(func(c *agent.RuleChange) **float64 { return &c.WindowSeconds }, readSeconds)},
	{"target", "target", func(r policy.Rule) string { return share(r.Target) },
		reads(func(c *agent.RuleChange) **float64 { return &c.Target }, readShare)},
	{"margin", "margin", func(r policy.Rule) string { return share(r.Margin) },
		reads(func(c *agent.RuleChange) **float64 { return &c.Margin }, readShare)},
	{"step", "step", func(r policy.Rule) string { return share(r.Step) },
		reads(func(c *agent.RuleChange) **float64 { return &c.Step }, readShare)},
	{"min", "min", func(r policy.Rule) string { return bound(r, r.Min, "spec/4") },
		reads(func(c *agent.RuleChange) **float64 { return &c.Min }, readAmount)},
	{"max", "max", func(r policy.Rule) string { return bound(r, r.Max, "spec*4") },
		reads(func(c *agent.RuleChange) **float64 { return &c.Max }, readAmount)},
}

func bound(r policy.Rule, v *float64, none string) string {
	if v == nil {
		return none
	}
	return limit(r.Resource, *v)
}

// source is where a value of a rule comes from.
func (f ruleField) source(r policy.Rule) string {
	return cmp.Or(r.Sources[f.json], r.Sources[f.name], policy.SourceDefault)
}

// isSet reports whether a source is somebody's wish.
func isSet(source string) bool { return source != policy.SourceDefault && source != policy.SourceSpec }

// ruleColumns show the rules; wide ones say of each value where it comes from,
// others only of those that were set.
func ruleColumns(wide bool) []column[policy.Rule] {
	all := []column[policy.Rule]{{"RESOURCE", false, func(r policy.Rule) string { return shortName(r.Resource) }}}
	for _, f := range ruleFields {
		all = append(all, column[policy.Rule]{strings.ToUpper(f.name), false, func(r policy.Rule) string {
			if wide {
				return f.show(r) + " (" + f.source(r) + ")"
			}
			return f.show(r)
		}})
	}
	if wide {
		return all
	}
	return append(all, column[policy.Rule]{"SET", false, setText})
}

// setText names the values that are no defaults, by who has set them.
func setText(r policy.Rule) string {
	by := map[string][]string{}
	for _, f := range ruleFields {
		if s := f.source(r); isSet(s) {
			by[s] = append(by[s], f.name)
		}
	}
	var parts []string
	for _, s := range []string{policy.SourceServe, policy.SourceHost, policy.SourceVM} {
		if len(by[s]) > 0 {
			parts = append(parts, s+": "+strings.Join(by[s], " "))
		}
	}
	return cmp.Or(strings.Join(parts, "; "), "-")
}

func (a *app) autoscalePolicy() *cobra.Command {
	return &cobra.Command{Use: "policy [VM]", Short: "Show by which rules limits are scaled, and where each value comes from", Args: atMost(1, "one VM"), ValidArgsFunction: a.completeVMs,
		Long:    "Show by which rules limits are scaled, and where each value comes from: the defaults, cloudflash serve, the host's policy or the VM's.\n\n" + policyHelp,
		Example: "  cloudflash autoscale policy\n  cloudflash autoscale policy web -o wide",
		RunE: func(c *cobra.Command, args []string) error {
			var p policy.Policy
			if err := a.client().get(c.Context(), "/autoscale/policy", ofVM(args), &p); err != nil {
				return err
			}
			return a.printPolicy(p, "")
		}}
}

const policyHelp = `A limit grows as soon as more than UP of it is used, so far that TARGET of it is. It shrinks when less than DOWN of it has been
used for COOLDOWN, or when it is well above the peak of WINDOW plus MARGIN; by STEP of it at most, and not within COOLDOWN of any
change. It stays between MIN and MAX.`

// printPolicy prints a policy, in tables only the rules of a resource when one
// is named, and none when it is idle.
func (a *app) printPolicy(p policy.Policy, resource string) error {
	switch a.output {
	case "json", "yaml", "jsonl":
		return printOne(a, p, nil, nil)
	}
	rules := p.Rules
	if i := slices.IndexFunc(rules, func(r policy.Rule) bool { return r.Resource == resource }); i >= 0 {
		rules = rules[i : i+1]
	}
	idle := [2]string{"idle VMs", idleText(p.Idle) + idleSources(p.Idle, a.output == "wide")}
	if p.VM != "" && p.Keep {
		idle[1] += "; this one is kept"
	}
	a.lines([2]string{"policy of", cmp.Or(p.VMName, "the host")},
		[2]string{"changes", fmt.Sprintf("at most %d a minute and %d an hour of a VM", p.PerMinute, p.PerHour)}, idle)
	if resource == "idle" && (a.output == "table" || a.output == "wide") {
		return nil
	}
	a.lines(below)
	return printList(a, rules, func(r policy.Rule) string { return shortName(r.Resource) }, ruleColumns(a.output == "wide"))
}

// idleSources names where the numbers come from, or who has set them.
func idleSources(p policy.IdlePolicy, wide bool) string {
	var parts []string
	for _, f := range [][3]string{{"after_seconds", "after", "after"}, {"notice_seconds", "notice", "notice"}, {"min_vms", "min-vms", "min_vms"}} {
		if s := cmp.Or(p.Sources[f[0]], p.Sources[f[2]], policy.SourceDefault); wide || isSet(s) {
			parts = append(parts, f[1]+": "+s)
		}
	}
	if parts == nil {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
