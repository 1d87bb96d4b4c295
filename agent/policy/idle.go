package policy

import (
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// Idle says what becomes of VMs in which nothing goes on.
type Idle struct {
	After  time.Duration // until one is announced; 0 never deletes
	Notice time.Duration // from there until it is deleted
	MinVMs int           // so many running VMs stay
}

// DefaultIdle holds where nothing else is said.
var DefaultIdle = Idle{After: time.Minute, Notice: 30 * time.Second}

// What the idle policy may say.
const (
	mostIdle    = 365 * 24 * time.Hour
	mostMinimum = 1 << 20
)

// IdleFor is what is in force where the host has that policy.
func (h *Host) IdleFor(host state.OwnPolicy) Idle {
	c := h.Idle
	if own := host.Layer.Idle; own != nil {
		seconds := func(field *time.Duration, v *float64) {
			if v != nil {
				*field = time.Duration(*v * float64(time.Second))
			}
		}
		seconds(&c.After, own.AfterSeconds)
		seconds(&c.Notice, own.NoticeSeconds)
		if own.MinVMs != nil {
			c.MinVMs = *own.MinVMs
		}
	}
	return c
}

// ShowIdle is what is in force, and where it comes from.
func (h *Host) ShowIdle(host state.OwnPolicy) IdlePolicy {
	d, c := DefaultIdle, h.Idle
	out := IdlePolicy{AfterSeconds: c.After.Seconds(), NoticeSeconds: c.Notice.Seconds(), MinVMs: c.MinVMs, Sources: map[string]string{}}
	source := func(field string, differs bool) {
		out.Sources[field] = SourceDefault
		if differs {
			out.Sources[field] = SourceServe
		}
	}
	source("after_seconds", c.After != d.After)
	source("notice_seconds", c.Notice != d.Notice)
	source("min_vms", c.MinVMs != d.MinVMs)
	if own := host.Layer.Idle; own != nil {
		overlay(&out.AfterSeconds, own.AfterSeconds, out.Sources, "after_seconds")
		overlay(&out.NoticeSeconds, own.NoticeSeconds, out.Sources, "notice_seconds")
		overlay(&out.MinVMs, own.MinVMs, out.Sources, "min_vms")
	}
	return out
}

func overlay[T any](field, v *T, sources map[string]string, name string) {
	if v != nil {
		*field, sources[name] = *v, SourceHost
	}
}

func checkIdle(l state.PolicyLayer, f *fault.List, host bool) {
	if l.Idle == nil {
		return
	}
	if !host {
		f.Add("/idle", nil, nil, "is of the host only; a VM is kept with keep")
		return
	}
	if v := l.Idle.AfterSeconds; v != nil {
		fault.Within(f, "/idle/after_seconds", *v, 0, mostIdle.Seconds())
	}
	if v := l.Idle.NoticeSeconds; v != nil {
		fault.Within(f, "/idle/notice_seconds", *v, 0, mostIdle.Seconds())
	}
	if v := l.Idle.MinVMs; v != nil {
		fault.Within(f, "/idle/min_vms", *v, 0, mostMinimum)
	}
}
