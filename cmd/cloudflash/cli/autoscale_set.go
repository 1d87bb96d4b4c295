package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"cloudflash/agent"
	"cloudflash/agent/policy"

	"github.com/spf13/cobra"
)

func (a *app) autoscaleSet() *cobra.Command {
	return &cobra.Command{Use: "set [VM] [RESOURCE] FIELD=VALUE...", Short: "Set by which rules limits are scaled", ValidArgsFunction: a.completeSet,
		Long: "Set by which rules limits are scaled: of a VM, or without one of all that have none of their own.\n\n" + policyHelp + `

RESOURCE is cpus, memory, storage, bandwidth, rbps, wbps, riops or wiops; all, or nothing, for every one that has no value of its own.
FIELD is mode (off, recommend, auto), up, down, target, margin, step (0.7 or 70%), cooldown, window (30s, 5m), min, max (of a VM; 2, 256MiB).
RESOURCE idle, of the host, has after, notice (60s; after=0 never deletes a VM) and min-vms.
FIELD= takes a value back, to what the host or the defaults say.`,
		Example: "  cloudflash autoscale set web cpus max=2 up=70%\n  cloudflash autoscale set web memory min=256MiB max=\n  cloudflash autoscale set web mode=recommend\n" +
			"  cloudflash autoscale set cooldown=2m\n  cloudflash autoscale set idle after=5m min-vms=2",
		Args: func(_ *cobra.Command, args []string) error {
			_, err := parseSet(args)
			return err
		},
		RunE: func(c *cobra.Command, args []string) error {
			s, err := parseSet(args)
			if err != nil {
				return err
			}
			p, err := a.changePolicy(c.Context(), s.vm, s.apply)
			if err != nil {
				return s.explain(err)
			}
			return a.printPolicy(p, s.resource)
		}}
}

// settings are the arguments of set.
type settings struct {
	vm, resource string
	alone        bool        // the VM stands alone before the fields, and may have been meant for a resource
	fields       [][2]string // names and values
}

func parseSet(args []string) (settings, error) {
	n := slices.IndexFunc(args, func(s string) bool { return strings.Contains(s, "=") })
	if n < 0 {
		return settings{}, usage("nothing to set: no word of it is FIELD=VALUE, such as max=4; cloudflash autoscale set --help lists the fields")
	}
	if n > 2 {
		return settings{}, usage("a VM and a resource may stand before the fields, not %q", args[:n])
	}
	s := settings{resource: policy.RuleAll}
	words := args[:n]
	if n > 0 {
		name, ok := resourceOf(words[n-1])
		switch {
		case ok:
			s.resource, words = name, words[:n-1]
		case n == 2:
			return s, usage("%q is no resource; there are %s", words[1], strings.Join(resourceNames(), ", "))
		}
	}
	if len(words) > 0 {
		s.vm, s.alone = words[0], n == 1
	}
	for _, f := range args[n:] {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			return s, usage("%q is no FIELD=VALUE; a VM and a resource stand before the fields", f)
		}
		s.fields = append(s.fields, [2]string{name, value})
	}
	return s, s.apply(&agent.PolicyLayer{}) // whether the values can be read
}

// explain adds what may have been meant by a lone word that is no VM.
func (s settings) explain(err error) error {
	var p *problemError
	if s.alone && errors.As(err, &p) && p.Status == http.StatusNotFound {
		p.Hint += "; as a resource, there are " + strings.Join(resourceNames(), ", ")
	}
	return err
}

// resourceOf finds a resource that can be set.
func resourceOf(word string) (string, bool) {
	if word == policy.RuleAll || word == "idle" {
		return word, true
	}
	return longName(word)
}

func resourceNames() []string {
	var all []string
	for _, n := range scaledNames {
		all = append(all, n[1])
	}
	return append(all, policy.RuleAll, "idle")
}

// apply lays the settings over a policy.
func (s settings) apply(own *agent.PolicyLayer) error {
	for _, f := range s.fields {
		var err error
		if s.resource == "idle" {
			err = setIdle(own, f[0], f[1])
		} else {
			err = setRule(own, s.resource, f[0], f[1])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func setRule(own *agent.PolicyLayer, resource, name, text string) error {
	i := slices.IndexFunc(ruleFields, func(f ruleField) bool { return f.name == name || f.json == name })
	if i < 0 {
		var known []string
		for _, f := range ruleFields {
			known = append(known, f.name)
		}
		return usage("%q is no field; there are %s", name, strings.Join(known, ", "))
	}
	change := own.Rules[resource]
	if err := ruleFields[i].set(&change, resource, text); err != nil {
		return usage("%s: %v", name, err)
	}
	if own.Rules == nil {
		own.Rules = map[string]agent.RuleChange{}
	}
	if own.Rules[resource] = change; change == (agent.RuleChange{}) {
		delete(own.Rules, resource)
	}
	return nil
}

func setIdle(own *agent.PolicyLayer, name, text string) error {
	var idle agent.IdleChange
	if own.Idle != nil {
		idle = *own.Idle
	}
	var err error
	switch name {
	case "after", "after_seconds":
		idle.AfterSeconds, err = optionally(text, func(s string) (float64, error) { return readSeconds("", s) })
	case "notice", "notice_seconds":
		idle.NoticeSeconds, err = optionally(text, func(s string) (float64, error) { return readSeconds("", s) })
	case "min-vms", "min_vms":
		idle.MinVMs, err = optionally(text, func(s string) (int, error) {
			n, err := strconv.Atoi(s)
			if err != nil {
				return 0, fmt.Errorf("%q is not a number of VMs", s)
			}
			return n, nil
		})
	default:
		return usage("%q is no field of idle; there are after, notice, min-vms", name)
	}
	if err != nil {
		return usage("%s: %v", name, err)
	}
	if own.Idle = &idle; idle == (agent.IdleChange{}) {
		own.Idle = nil
	}
	return nil
}

// optionally reads text, or nothing where there is none.
func optionally[T any](text string, read func(string) (T, error)) (*T, error) {
	if text == "" {
		return nil, nil
	}
	v, err := read(text)
	return &v, err
}

// changePolicy changes what was set for a VM, or for the host when vm is empty.
// Where somebody else has set it between reading and writing, it tries once more.
func (a *app) changePolicy(ctx context.Context, vm string, change func(*agent.PolicyLayer) error) (policy.Policy, error) {
	for last := false; ; last = true {
		var old, p policy.Policy
		query := ofVM(nil)
		if vm != "" {
			query = ofVM([]string{vm})
		}
		if err := a.client().get(ctx, "/autoscale/policy", query, &old); err != nil {
			return p, err
		}
		if err := change(&old.Own); err != nil {
			return p, err
		}
		err := a.client().call(ctx, "PUT", "/autoscale/policy", query, old.Own, &p, "If-Match", `"`+old.Version+`"`)
		var refused *problemError
		if last || !errors.As(err, &refused) || refused.Status != http.StatusPreconditionFailed {
			return p, err
		}
	}
}

var modes = []string{"off", "recommend", "auto"}

func checkMode(mode string) error {
	if !slices.Contains(modes, mode) {
		return usage("--autoscale must be off, recommend or auto, not %q", mode)
	}
	return nil
}

// inMode gives all limits the mode, those with one of their own too.
func inMode(mode string) func(*agent.PolicyLayer) error {
	return func(own *agent.PolicyLayer) error {
		for name := range own.Rules {
			if err := setRule(own, name, "mode", ""); err != nil {
				return err
			}
		}
		return setRule(own, policy.RuleAll, "mode", mode)
	}
}

func (a *app) completeSet(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	var all []string
	if !slices.ContainsFunc(args, func(s string) bool { return strings.Contains(s, "=") }) {
		if len(args) == 0 {
			all, _ = a.completeVMs(c, args, word)
		}
		if len(args) < 2 {
			all = append(all, resourceNames()...)
		}
	}
	if slices.Contains(args, "idle") {
		all = append(all, "after=", "notice=", "min-vms=")
	} else {
		for _, f := range ruleFields {
			all = append(all, f.name+"=")
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
