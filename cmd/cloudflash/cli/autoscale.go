package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"
	"cloudflash/cmd/quantity"

	"github.com/spf13/cobra"
)

func (a *app) autoscaleCommand() *cobra.Command {
	return group("autoscale", "Show and set how limits of VMs are scaled", a.autoscaleStatus(), a.autoscalePolicy(), a.autoscaleSet(), a.autoscaleEvents())
}

// atMost checks the number of arguments.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return usage("%s takes at most %s; usage: %s", c.CommandPath(), what, c.UseLine())
		}
		return nil
	}
}

// ofVM is the query for one VM, or for none.
func ofVM(args []string) url.Values {
	if len(args) == 0 {
		return url.Values{}
	}
	return url.Values{"vm": {args[0]}}
}

func (a *app) autoscaleStatus() *cobra.Command {
	return &cobra.Command{Use: "status [VM]", Short: "Show how autoscaling and idle clean-up stand", Args: atMost(1, "one VM"), ValidArgsFunction: a.completeVMs,
		Example: "  cloudflash autoscale status\n  cloudflash autoscale status web -o wide",
		RunE: func(c *cobra.Command, args []string) error {
			var s agent.ScalingStatus
			if err := a.client().get(c.Context(), "/autoscale/status", ofVM(args), &s); err != nil {
				return err
			}
			switch a.output {
			case "json", "yaml", "jsonl":
				return printOne(a, s, nil, nil)
			}
			if len(args) == 0 {
				a.describeScaling(s)
				return printList(a, s.VMs, func(v scaling.VMScaling) string { return v.VMName }, scalingColumns)
			}
			if len(s.VMs) == 0 { // it is too young, or being deleted
				return fmt.Errorf("nothing is known of VM %s yet", clean(args[0]))
			}
			a.describeVMScaling(s.VMs[0])
			return printList(a, s.VMs[0].Resources, func(r scaling.Scaled) string { return shortName(r.Resource) }, scaledColumns)
		}}
}

// lines prints names and what they stand for, for people.
func (a *app) lines(each ...[2]string) {
	if a.output != "table" && a.output != "wide" || a.noHeaders {
		return
	}
	for _, l := range each {
		fmt.Fprintln(a.Out, strings.TrimSpace(fmt.Sprintf("%-12s%s", l[0], clean(l[1]))))
	}
}

// below is the empty line between lines and the table below them.
var below = [2]string{}

func (a *app) describeScaling(s agent.ScalingStatus) {
	woken := map[string]string{"events": "woken by the kernel", "polling": "looks once a second"}[s.Wakeups]
	if s.Note != "" {
		woken += ": " + s.Note
	}
	a.lines([2]string{"autoscale", s.Mode + ", " + woken},
		[2]string{"room", fmt.Sprintf("%s of %s cores, %s of %s of memory, %s of %s of storage are free", cpus(&s.Free.CPUs), cpus(&s.Capacity.CPUs),
			quantity.FormatBytes(s.Free.MemoryBytes), quantity.FormatBytes(s.Capacity.MemoryBytes),
			quantity.FormatBytes(s.Free.StorageBytes), quantity.FormatBytes(s.Capacity.StorageBytes))},
		[2]string{"idle VMs", idleText(s.Idle)}, below)
}

func idleText(p policy.IdlePolicy) string {
	if p.AfterSeconds == 0 {
		return "are kept"
	}
	text := fmt.Sprintf("are deleted after %s and a notice of %s", seconds(p.AfterSeconds), seconds(p.NoticeSeconds))
	if p.MinVMs > 0 {
		text += fmt.Sprintf("; at least %d stay", p.MinVMs)
	}
	return text
}

func (a *app) describeVMScaling(v scaling.VMScaling) {
	a.lines([2]string{"vm", v.VMName}, [2]string{"autoscale", v.Mode},
		[2]string{"changes", fmt.Sprintf("%d of %d in the last hour", v.Spent, v.PerHour)},
		[2]string{"idle", cmp.Or(v.Activity, idleState(v))}, below)
}

var scalingColumns = []column[scaling.VMScaling]{
	{"VM", false, func(v scaling.VMScaling) string { return v.VMName }},
	{"MODE", false, func(v scaling.VMScaling) string { return v.Mode }},
	{"CPUS", false, func(v scaling.VMScaling) string { return useOf(v, "cpus") }},
	{"MEMORY", false, func(v scaling.VMScaling) string { return useOf(v, "memory_bytes") }},
	{"STORAGE", true, func(v scaling.VMScaling) string { return useOf(v, "storage_bytes") }},
	{"BANDWIDTH", true, func(v scaling.VMScaling) string { return useOf(v, "bandwidth_bps") }},
	{"STATE", false, stateOf},
	{"CHANGES", false, func(v scaling.VMScaling) string { return fmt.Sprintf("%d/%d", v.Spent, v.PerHour) }},
	{"IDLE", false, idleState},
	{"LAST", false, func(v scaling.VMScaling) string { return lastText(lastOf(v), true) }},
	{"ID", true, func(v scaling.VMScaling) string { return v.VM }},
}

func useOf(v scaling.VMScaling, resource string) string {
	for _, r := range v.Resources {
		if r.Resource == resource {
			return amount(resource, r.Use) + "/" + limit(resource, r.Limit)
		}
	}
	return "-"
}

// stateOf names what is out of the ordinary, else the mildest that all are.
func stateOf(v scaling.VMScaling) string {
	var odd []string
	calm := "off"
	for _, r := range v.Resources {
		switch r.State {
		case "off":
		case "steady", "cooldown":
			if calm != "cooldown" {
				calm = r.State
			}
		default:
			odd = append(odd, shortName(r.Resource)+" "+r.State)
		}
	}
	return cmp.Or(strings.Join(odd, ", "), calm)
}

// idleState is how far a VM is from being deleted.
func idleState(v scaling.VMScaling) string {
	switch {
	case v.DeleteAt != nil:
		return "deleted in " + until(*v.DeleteAt)
	case v.Keep:
		return "kept"
	case v.IdleSince != nil:
		return "for " + age(*v.IdleSince)
	}
	return "-"
}

// until is how long it is to a time.
func until(t time.Time) string { return seconds(max(time.Until(t), 0).Round(time.Second).Seconds()) }

func lastOf(v scaling.VMScaling) *agent.Decision {
	var last *agent.Decision
	for _, r := range v.Resources {
		if d := r.LastDecision; d != nil && (last == nil || d.Seq > last.Seq) {
			last = d
		}
	}
	return last
}

// lastText is a decision and how long ago it was.
func lastText(d *agent.Decision, resource bool) string {
	if d == nil {
		return "-"
	}
	text := fromText(*d) + " → " + toText(*d)
	if resource {
		text = shortName(d.Resource) + " " + text
	}
	if d.Result != agent.DecisionApplied {
		text += ", " + string(d.Result)
	}
	return text + ", " + age(d.At) + " ago"
}

var scaledColumns = []column[scaling.Scaled]{
	{"RESOURCE", false, func(r scaling.Scaled) string { return shortName(r.Resource) }},
	{"MODE", false, func(r scaling.Scaled) string { return r.Mode }},
	{"STATE", false, func(r scaling.Scaled) string { return r.State }},
	{"USE", false, func(r scaling.Scaled) string { return amount(r.Resource, r.Use) }},
	{"LIMIT", false, func(r scaling.Scaled) string { return limit(r.Resource, r.Limit) }},
	{"HIGH", true, func(r scaling.Scaled) string { return limit(r.Resource, r.High) }},
	{"SPEC", true, func(r scaling.Scaled) string { return limit(r.Resource, r.Spec) }},
	{"MIN", false, func(r scaling.Scaled) string { return limit(r.Resource, r.Min) }},
	{"MAX", false, func(r scaling.Scaled) string { return limit(r.Resource, r.Max) }},
	{"UP", false, func(r scaling.Scaled) string { return share(r.Up) }},
	{"DOWN", false, func(r scaling.Scaled) string { return share(r.Down) }},
	{"COOLDOWN", false, func(r scaling.Scaled) string {
		if r.CooldownUntil == nil || !r.CooldownUntil.After(time.Now()) {
			return "-"
		}
		return until(*r.CooldownUntil) + " left"
	}},
	{"HOLD", true, func(r scaling.Scaled) string { return seconds(r.HoldSeconds) }},
	{"LEARNED", true, func(r scaling.Scaled) string { return seconds(r.LearnedHold) }},
	{"LAST", false, func(r scaling.Scaled) string { return lastText(r.LastDecision, false) }},
}

// scalingOf is what vm show says of autoscaling. The VM's own mode is enough when
// no more can be had.
func (a *app) scalingOf(ctx context.Context, v agent.VM) string {
	var s agent.ScalingStatus
	text := v.Autoscale.Mode
	if err := a.client().get(ctx, "/autoscale/status", url.Values{"vm": {v.ID}}, &s); err != nil || len(s.VMs) == 0 {
		return text
	}
	if state := stateOf(s.VMs[0]); state != text {
		text += ", " + state
	}
	if d := lastOf(s.VMs[0]); d != nil {
		text += "; " + lastText(d, true) + ": " + d.Reason
	}
	return text
}
