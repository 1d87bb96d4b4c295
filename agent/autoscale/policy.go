package autoscale

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Mode is what becomes of decisions.
type Mode string

// The modes.
const (
	Off       Mode = "off"
	Recommend Mode = "recommend" // decisions are made and shown, not applied
	Auto      Mode = "auto"
)

// A Rule says how one resource of one VM is scaled. Ratios are of the limit.
type Rule struct {
	Mode     Mode          `json:"mode"`
	Up       float64       `json:"up"`       // use above this ratio grows
	Down     float64       `json:"down"`     // use below this ratio for Cooldown shrinks
	Cooldown time.Duration `json:"cooldown"` // from any change to a shrink; growing never waits
	Window   time.Duration `json:"window"`   // of use that a shrink between Down and Up looks back on
	Target   float64       `json:"target"`   // use after growing
	Margin   float64       `json:"margin"`   // above the peak of the window, after shrinking
	Step     float64       `json:"step"`     // most that one shrink takes
	Min      float64       `json:"min"`      // bounds, in the unit of the resource
	Max      float64       `json:"max"`
}

// A Policy is the rules of one VM.
type Policy struct {
	Rules     [Resources]Rule `json:"rules"`
	SLA       int             `json:"sla"`        // 1 low to 3 high: how much throttling is taken for normal
	PerMinute int             `json:"per_minute"` // most changes of a VM, all resources together
	PerHour   int             `json:"per_hour"`
}

// DefaultRule is the rule of a resource without its bounds.
//
// 80 %, 20 % and 60 s are what users of the original know. Window: HPA looks back
// 300 s before it shrinks, Borg holds a reservation for 300 s. Target: 70 to 75 %
// is usual (HPA's examples, Tiny Autoscalers). Margin: Autopilot's 10 to 15 %.
// Step: a halving undone by one doubling, the most that one tick grows.
func DefaultRule(r Resource) Rule {
	rule := Rule{Mode: Auto, Up: 0.8, Down: 0.2, Cooldown: time.Minute, Window: 5 * time.Minute, Target: 0.7, Margin: 0.15, Step: 0.5}
	if r == Storage {
		rule.Window, rule.Step = time.Hour, 0.2 // files do not come and go in minutes
	}
	return rule
}

// Bounds where none are asked for.
const (
	below = 0.25 // of the spec: the default Min
	above = 4    // times the spec: the default Max
)

// Default is the policy of a VM that was asked for as spec: bounds are a quarter
// and four times of it, within floor and ceiling (the ranges that are accepted
// and what the host has). Storage is not taken below it: a program may ask for all of
// what is its own at once, and be refused before anybody sees that it needs it; and a
// quota that nobody fills costs nobody anything. Resources without a limit, and those
// of which floor and ceiling leave no room, are off.
func Default(spec, floor, ceiling Limits) Policy {
	p := Policy{SLA: 2, PerMinute: 12, PerHour: 60}
	for r := range Resources {
		rule := DefaultRule(r)
		rule.Min, rule.Max = max(spec[r]*below, floor[r]), spec[r]*above
		if r == Storage {
			rule.Min = max(spec[r], floor[r])
		}
		if ceiling[r] > 0 {
			rule.Max = min(rule.Max, ceiling[r])
		}
		if spec[r] <= 0 || rule.Min > rule.Max {
			rule.Mode, rule.Min, rule.Max = Off, spec[r], spec[r]
		}
		p.Rules[r] = rule
	}
	return p
}

// A Fault is one value of a policy that cannot be, and what it may be.
type Fault struct {
	Field  string // such as cpus.down
	Detail string
}

func (f *Fault) Error() string { return f.Field + ": " + f.Detail }

// Validate returns everything that is wrong with a policy: Faults, joined.
func (p Policy) Validate() error {
	var errs []error
	bad := func(field string, format string, args ...any) {
		errs = append(errs, &Fault{field, fmt.Sprintf(format, args...)})
	}
	if p.SLA < 1 || p.SLA > 3 {
		bad("sla", "%d: must be 1 to 3", p.SLA)
	}
	if p.PerMinute < 1 || p.PerMinute > 600 {
		bad("per_minute", "%d: must be 1 to 600", p.PerMinute)
	}
	if p.PerHour < p.PerMinute || p.PerHour > 3600 {
		bad("per_hour", "%d: must be %d (per_minute) to 3600", p.PerHour, p.PerMinute)
	}
	for r, rule := range p.Rules {
		if rule.Mode != Off {
			errs = append(errs, rule.validate(Resource(r)))
		} else if rule.Min > rule.Max {
			bad(Resource(r).String()+".min", "%v: must be at most max, %v", rule.Min, rule.Max)
		}
	}
	return errors.Join(errs...)
}

// The limits of what a rule may say. Below a second the kernel's own periods of
// 100 ms show; a cooldown or window of over a day never ends for a VM of usual age.
const (
	leastCooldown = time.Second
	mostCooldown  = 24 * time.Hour
	mostWindow    = 24 * time.Hour
)

func (rule Rule) validate(r Resource) error {
	var errs []error
	check := func(ok bool, field string, value any, want string, args ...any) {
		if !ok {
			errs = append(errs, &Fault{r.String() + "." + field, fmt.Sprintf("%v: must be %s", value, fmt.Sprintf(want, args...))})
		}
	}
	within := func(v, low, high float64) bool { return v >= low && v <= high } // false for NaN
	check(rule.Mode == Recommend || rule.Mode == Auto, "mode", string(rule.Mode), "off, recommend or auto")
	check(within(rule.Up, 0.1, 1), "up", rule.Up, "0.1 to 1")
	check(within(rule.Down, 0, 0.9), "down", rule.Down, "0 to 0.9")
	// After the largest step down, use that was just below Down must not be above Up.
	check(rule.Down < rule.Up && rule.Down/(1-min(rule.Step, gentle)) <= rule.Up, "down", rule.Down,
		"below up, %v, by a step of %v at least", rule.Up, min(rule.Step, gentle))
	check(rule.Cooldown >= leastCooldown && rule.Cooldown <= mostCooldown, "cooldown", rule.Cooldown, "%v to %v", leastCooldown, mostCooldown)
	check(rule.Window >= rule.Cooldown && rule.Window <= mostWindow, "window", rule.Window, "%v (cooldown) to %v", rule.Cooldown, mostWindow)
	check(rule.Target > rule.Down && rule.Target < rule.Up, "target", rule.Target, "between down, %v, and up, %v", rule.Down, rule.Up)
	check(within(rule.Margin, 0, 2), "margin", rule.Margin, "0 to 2")
	check(within(rule.Step, 0.01, 0.5), "step", rule.Step, "0.01 to 0.5")
	check(within(rule.Min, math.SmallestNonzeroFloat64, math.MaxFloat64), "min", rule.Min, "above 0")
	check(within(rule.Max, rule.Min, math.MaxFloat64), "max", r.Amount(rule.Max), "at least min, %s", r.Amount(rule.Min))
	return errors.Join(errs...)
}

// LeastIO is the least that io.max takes: it refuses 1 (tg_set_limit in block/blk-throttle.c).
const LeastIO = 2

// whole is the least amount that is not below v and that the kernel can be told: all
// but cores are counted in ones, and 0 would be no limit at all.
func (rule Rule) whole(r Resource, v float64) float64 {
	if r == CPU {
		return v
	}
	least := 1.0
	if r >= ReadBPS {
		least = LeastIO
	}
	return max(min(math.Ceil(v-1e-6), math.Floor(rule.Max)), least)
}

// clamp holds a size within the bounds.
func (rule Rule) clamp(v float64) float64 { return min(max(v, rule.Min), rule.Max) }

// tolerated is the share of throttled periods that is normal for a class of
// service: steps of Autothrottle's ladder of targets, 0, .02, .04, .06, .1, .15...
func tolerated(sla int) float64 {
	switch sla {
	case 3:
		return 0.02
	case 1:
		return 0.15
	}
	return 0.06
}

// intolerable is the share of throttled periods above which a limit is too small
// (Captain: three times its target).
func intolerable(sla int) float64 { return 3 * tolerated(sla) }

// evidence is how many samples a shrink has to look back on at least. The next of
// n+1 like samples is their greatest with a chance of 1/(n+1), whatever they are
// distributed like: with so many, a shrink to that peak is no likelier to be too
// much than what makes a limit grow: 17, 6 or 3. What is missed is learned (hold).
func evidence(sla int) int { return int(math.Ceil(1 / intolerable(sla))) }
