package autoscale_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
)

func TestPolicySaysWhatIsWrong(t *testing.T) {
	const cpu = autoscale.CPU
	spec := autoscale.Limits{autoscale.CPU: 2, autoscale.Memory: 1 << 30}
	for name, c := range map[string]struct {
		change func(*autoscale.Policy)
		want   string // "" is valid
	}{
		"the default":               {func(*autoscale.Policy) {}, ""},
		"thresholds crossed":        {func(p *autoscale.Policy) { p.Rules[cpu].Up, p.Rules[cpu].Down = 0.2, 0.8 }, "cpus.down: 0.8: must be below up, 0.2"},
		"thresholds that oscillate": {func(p *autoscale.Policy) { p.Rules[cpu].Down, p.Rules[cpu].Target = 0.69, 0.7 }, "cpus.down: 0.69: must be below up, 0.8, by a step of 0.2"},
		"up above the limit":        {func(p *autoscale.Policy) { p.Rules[cpu].Up = 1.2 }, "cpus.up: 1.2: must be 0.1 to 1"},
		"up is no number":           {func(p *autoscale.Policy) { p.Rules[cpu].Up = math.NaN() }, "cpus.up: NaN: must be 0.1 to 1"},
		"no cooldown":               {func(p *autoscale.Policy) { p.Rules[cpu].Cooldown = 0 }, "cpus.cooldown: 0s: must be 1s to 24h0m0s"},
		"a cooldown of a year":      {func(p *autoscale.Policy) { p.Rules[cpu].Cooldown = 365 * 24 * time.Hour }, "cpus.cooldown: 8760h0m0s: must be 1s to 24h0m0s"},
		"a window below it":         {func(p *autoscale.Policy) { p.Rules[cpu].Window = time.Second }, "cpus.window: 1s: must be 1m0s (cooldown) to 24h0m0s"},
		"bounds that contradict":    {func(p *autoscale.Policy) { p.Rules[cpu].Min, p.Rules[cpu].Max = 4, 1 }, "cpus.max: 1.00 cores: must be at least min, 4.00 cores"},
		"no lower bound":            {func(p *autoscale.Policy) { p.Rules[cpu].Min = 0 }, "cpus.min: 0: must be above 0"},
		"a bound without end":       {func(p *autoscale.Policy) { p.Rules[cpu].Max = math.Inf(1) }, "cpus.max: +Inf"},
		"a target above up":         {func(p *autoscale.Policy) { p.Rules[cpu].Target = 0.9 }, "cpus.target: 0.9: must be between down, 0.2, and up, 0.8"},
		"an unknown mode":           {func(p *autoscale.Policy) { p.Rules[cpu].Mode = "on" }, "cpus.mode: on: must be off, recommend or auto"},
		"no such class":             {func(p *autoscale.Policy) { p.SLA = 4 }, "sla: 4: must be 1 to 3"},
		"no budget":                 {func(p *autoscale.Policy) { p.PerMinute = 0 }, "per_minute: 0: must be 1 to 600"},
		"less an hour":              {func(p *autoscale.Policy) { p.PerHour = 2 }, "per_hour: 2: must be 12 (per_minute) to 3600"},
		"a step to nothing":         {func(p *autoscale.Policy) { p.Rules[cpu].Step = 1 }, "cpus.step: 1: must be 0.01 to 0.5"},
		"off is not looked at":      {func(p *autoscale.Policy) { p.Rules[cpu].Mode, p.Rules[cpu].Up = autoscale.Off, 7 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := policy(spec)
			c.change(&p)
			err := p.Validate()
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, made := autoscale.NewScaler("vm", p); (made == nil) != (err == nil) {
				t.Errorf("NewScaler: %v", made)
			}
		})
	}
}

func TestDefaultBounds(t *testing.T) {
	p := autoscale.Default(autoscale.Limits{autoscale.CPU: 2, autoscale.Memory: 1 << 30, autoscale.Bandwidth: 0},
		autoscale.Limits{autoscale.CPU: 0.1, autoscale.Memory: 512 << 20}, autoscale.Limits{autoscale.CPU: 4})
	cpu, memory := p.Rules[autoscale.CPU], p.Rules[autoscale.Memory]
	if cpu.Min != 0.5 || cpu.Max != 4 || memory.Min != 512<<20 || memory.Max != 4<<30 {
		t.Errorf("bounds %v-%v cores, %v-%v bytes", cpu.Min, cpu.Max, memory.Min, memory.Max)
	}
	if p.Rules[autoscale.Bandwidth].Mode != autoscale.Off {
		t.Error("a resource without a limit is scaled")
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

func TestResourceNames(t *testing.T) {
	for r := range autoscale.Resources {
		b, err := json.Marshal(r)
		var back autoscale.Resource
		if err != nil || json.Unmarshal(b, &back) != nil || back != r {
			t.Errorf("%v: %s, %v", r, b, err)
		}
	}
	if _, err := autoscale.ParseResource("cores"); err == nil {
		t.Error("cores is a resource")
	}
}

func TestEffectiveSaysWhereAValueComesFrom(t *testing.T) {
	up, mode, least := 0.9, autoscale.Recommend, 2.0
	rule, from := autoscale.Effective(autoscale.DefaultRule(autoscale.CPU),
		autoscale.Layer{Name: "host", Change: autoscale.Change{Up: &up, Mode: &mode}},
		autoscale.Layer{Name: "vm", Change: autoscale.Change{Mode: new(autoscale.Mode), Min: &least}})
	if rule.Up != 0.9 || rule.Mode != "" || rule.Min != 2 || rule.Down != 0.2 {
		t.Errorf("rule = %+v", rule)
	}
	if len(from) != 3 || from["up"] != "host" || from["mode"] != "vm" || from["min"] != "vm" {
		t.Errorf("from = %v", from)
	}
}
