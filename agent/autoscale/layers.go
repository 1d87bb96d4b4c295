package autoscale

import "time"

// A Change says what of a rule is asked for; nil leaves a value as it is.
type Change struct {
	Mode     *Mode          `json:"mode,omitempty"`
	Up       *float64       `json:"up,omitempty"`
	Down     *float64       `json:"down,omitempty"`
	Cooldown *time.Duration `json:"cooldown,omitempty"`
	Window   *time.Duration `json:"window,omitempty"`
	Target   *float64       `json:"target,omitempty"`
	Margin   *float64       `json:"margin,omitempty"`
	Step     *float64       `json:"step,omitempty"`
	Min      *float64       `json:"min,omitempty"`
	Max      *float64       `json:"max,omitempty"`
}

// A Layer is a change and where it comes from: "host", "vm" and so on.
type Layer struct {
	Name   string
	Change Change
}

// Effective is a rule with layers laid over it, later ones on top, and for each
// field, by its name in JSON, the layer it comes from. Fields of no layer are left
// out: they are the default.
func Effective(base Rule, layers ...Layer) (Rule, map[string]string) {
	from := map[string]string{}
	for _, l := range layers {
		c := &l.Change
		set(&base.Mode, c.Mode, from, "mode", l.Name)
		set(&base.Up, c.Up, from, "up", l.Name)
		set(&base.Down, c.Down, from, "down", l.Name)
		set(&base.Cooldown, c.Cooldown, from, "cooldown", l.Name)
		set(&base.Window, c.Window, from, "window", l.Name)
		set(&base.Target, c.Target, from, "target", l.Name)
		set(&base.Margin, c.Margin, from, "margin", l.Name)
		set(&base.Step, c.Step, from, "step", l.Name)
		set(&base.Min, c.Min, from, "min", l.Name)
		set(&base.Max, c.Max, from, "max", l.Name)
	}
	return base, from
}

func set[T any](to, value *T, from map[string]string, field, layer string) {
	if value != nil {
		*to = *value
		from[field] = layer
	}
}
