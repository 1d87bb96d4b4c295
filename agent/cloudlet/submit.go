package cloudlet

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"cloudflash/agent/clock"
	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// Submit asks for one command to be run.
type Submit struct {
	Name            string
	VM              string // id or name; empty or "auto" lets the scheduler choose
	Argv            []string
	Env             map[string]string
	WorkDir         string
	SLA             int
	DeadlineSeconds float64
	OnDeadline      string
	DurationSeconds float64 // of the built-in burn when Argv is empty
	Request         state.Request
	Key             string `json:"-"` // tells the same request, made again, from a second one; empty for none
}

// NameRule is what names of cloudlets are like: those of VMs, and dots, underscores and
// capitals.
var NameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)

// What a cloudlet that asks for nothing is counted as.
const (
	defaultRequestCPUs   = 0.1
	defaultRequestMemory = 32 << 20
)

// defaultDuration is how long the built-in burn runs.
const defaultDuration = 60

// WithDefaults fills in what was left out.
func (r Submit) WithDefaults() Submit {
	r.SLA = cmp.Or(r.SLA, state.SLAMedium)
	r.OnDeadline = cmp.Or(r.OnDeadline, state.OnDeadlineKill)
	r.Request.CPUs = cmp.Or(r.Request.CPUs, defaultRequestCPUs)
	r.Request.MemoryBytes = cmp.Or(r.Request.MemoryBytes, defaultRequestMemory)
	r.DurationSeconds = cmp.Or(r.DurationSeconds, defaultDuration)
	return r
}

// Record is the cloudlet that is asked for, for a VM or, where there is none, for any.
func (r Submit) Record(vmID, boot string, m clock.Moment) state.Cloudlet {
	rec := state.Cloudlet{
		ID:              state.NewID(),
		Name:            r.Name,
		VM:              vmID,
		Argv:            r.Argv,
		Env:             r.Env,
		WorkDir:         r.WorkDir,
		State:           state.CloudletQueued,
		SLA:             r.SLA,
		DeadlineSeconds: r.DeadlineSeconds,
		OnDeadline:      r.OnDeadline,
		Request:         r.Request,
		CreatedAt:       m.Day,
		Boot:            boot,
		SubmittedBoot:   m.Boot,
		Pinned:          vmID != "",
		Duration:        r.DurationSeconds,
	}
	if r.DeadlineSeconds > 0 {
		rec.DeadlineBoot = m.Boot + seconds(r.DeadlineSeconds)
		rec.DeadlineAt = new(m.Day.Add(seconds(r.DeadlineSeconds)))
	}
	return rec
}

// The most of a command line and its environment that fits one message to the
// init of a VM with room to spare.
const (
	maxArgs     = 1024
	maxArgBytes = 96 << 10
)

// Check refuses what cannot be.
func (c Submit) Check() error {
	var f fault.List
	if c.Name != "" && !NameRule.MatchString(c.Name) {
		f.Add("/name", nil, nil, "must be 1 to 63 letters, digits, dots, underscores and hyphens, not %s", fault.Quote(c.Name))
	}
	fault.Within(&f, "/sla", c.SLA, state.SLALow, state.SLAHigh)
	fault.Within(&f, "/deadline_seconds", c.DeadlineSeconds, 0, 10*365*86400)
	fault.Within(&f, "/duration_seconds", c.DurationSeconds, 0, 365*86400)
	if c.OnDeadline != state.OnDeadlineKill && c.OnDeadline != state.OnDeadlineContinue {
		f.Add("/on_deadline", nil, nil, "must be kill or continue, not %s", fault.Quote(c.OnDeadline))
	}
	if c.WorkDir != "" && (!filepath.IsAbs(c.WorkDir) || strings.ContainsRune(c.WorkDir, 0) || len(c.WorkDir) > 4095) {
		f.Add("/workdir", nil, nil, "must be an absolute path of at most 4095 bytes, not %s", fault.Quote(c.WorkDir))
	}
	c.checkCommand(&f)
	checkRequest(c.Request, &f)
	return f.Err("invalid_cloudlet")
}

func (c Submit) checkCommand(f *fault.List) {
	size := 0
	for i, a := range c.Argv {
		size += len(a) + 1
		if strings.ContainsRune(a, 0) {
			f.Add(fmt.Sprintf("/argv/%d", i), nil, nil, "holds a NUL byte")
		}
	}
	if len(c.Argv) > 0 && c.Argv[0] == "" {
		f.Add("/argv/0", nil, nil, "must name a command")
	}
	for k, v := range c.Env {
		size += len(k) + len(v) + 2
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			f.Add("/env", nil, nil, "%s: a name has no = or NUL and is not empty, a value has no NUL", fault.Quote(k))
		}
	}
	if len(c.Argv)+len(c.Env) > maxArgs || size > maxArgBytes {
		f.Add("/argv", nil, maxArgBytes, "and env hold %d entries and %d bytes, at most %d and %d are accepted",
			len(c.Argv)+len(c.Env), size, maxArgs, maxArgBytes)
	}
}

func checkRequest(r state.Request, f *fault.List) {
	fault.Within(f, "/request/cpus", r.CPUs, 0, 1024)
	fault.Within(f, "/request/memory_bytes", r.MemoryBytes, 0, 256<<40)
	fault.Within(f, "/request/storage_bytes", r.StorageBytes, 0, 1024<<40)
	fault.Within(f, "/request/bandwidth_bps", r.BandwidthBPS, 0, 1e12)
	fault.Within(f, "/request/gpus", r.GPUs, 0, 64)
}
