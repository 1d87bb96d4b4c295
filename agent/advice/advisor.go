// Package advice remembers what VMs have used, tells how they should have been asked
// for, and finds what ails them. It changes nothing: taking advice is up to the agent.
package advice

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
	"cloudflash/agent/store"
)

// TemplateLabel is the label that says what kind of VM one is: what was seen of
// those with the same value counts for a new one too.
const TemplateLabel = "template"

// mostTemplates are remembered; those used longest ago are forgotten first.
const mostTemplates = 256

// longestLook is what one look at a VM may stand for. Of a longer gap, such as a
// suspended machine, nobody knows what was used in it.
const longestLook = 10 * time.Second

// Config is what an Advisor is told at the start. It asks the agent by it too.
type Config struct {
	Log   *slog.Logger
	Store *store.Store // of what VMs have used
	State *state.DB
	After time.Duration // how long a VM is watched until something is found about it

	Rules    func() *policy.Host
	Room     func() autoscale.Limits // what limits of VMs together may be at most
	Now      func(vmID string) (Now, bool)
	Machine  func() autoscale.Machine // but for how busy it was
	Pressure func() bool              // whether the kernel tells who waits for what
}

// Now is how a VM stands that the agent has.
type Now struct {
	Limits  autoscale.Limits // as the kernel has them, 0 where there is none
	IdleFor time.Duration    // 0 while it is not idle
}

// Advisor remembers what VMs have used: for how they should have been asked for, which
// takes days, and for what ails them now, which takes minutes. Its lock is taken after
// all others.
type Advisor struct {
	cfg Config

	mu        sync.Mutex // guards what follows
	vms       map[string]*watched
	templates map[string]*template
	host      recent              // of the host, CPU only
	busy      float64             // core-seconds since the agent started, as shares of the host
	gone      map[string]struct{} // keys of records to delete
}

// New is an Advisor that has seen nothing yet; Load makes it know what one before it has
// stored.
func New(cfg Config) *Advisor {
	return &Advisor{
		cfg:       cfg,
		vms:       map[string]*watched{},
		templates: map[string]*template{},
		gone:      map[string]struct{}{},
	}
}

// watched is what is remembered of a VM.
type watched struct {
	template string
	profile  *autoscale.Profile
	recent   recent
	unsaved  bool
}

// template is what its VMs that are gone have used.
type template struct {
	profile *autoscale.Profile
	used    time.Time
	unsaved bool
}

// Look takes what the meter says of a VM, once a second. Here a VM becomes known.
func (d *Advisor) Look(id, template string, u *state.Usage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.vms[id]
	if w == nil {
		w = &watched{template: template, profile: autoscale.NewProfile(u.At)}
		d.vms[id] = w
		if t := d.templates[template]; t != nil {
			t.used, t.unsaved = u.At, true
		}
	}
	w.recent.add(markOf(u))
}

// LookHost takes what share of its cores the host was busy with since the last time.
func (d *Advisor) LookHost(at time.Time, busy float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dt := at.Sub(d.host.last.at); dt > 0 && dt <= longestLook {
		d.busy += busy * dt.Seconds()
	}
	d.host.add(mark{at: at, cpu: d.busy})
}

// Add counts what a VM would have used in the time dt up to at without its limits, as
// Scaler.Needs tells. VMs that the meter has not shown yet, and those that are gone,
// are passed over.
func (d *Advisor) Add(id string, at time.Time, dt time.Duration, needs autoscale.Limits, known [autoscale.Resources]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.vms[id]; w != nil && dt <= longestLook {
		w.profile.Add(at, dt, needs, known)
		w.unsaved = true
	}
}

// OOM counts a kill for want of memory with so many bytes in use.
func (d *Advisor) OOM(id string, at time.Time, used float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.vms[id]; w != nil {
		w.profile.OOM(at, used)
		w.unsaved = true
	}
}

// Forget leaves what was seen of a VM that is deleted to its template.
func (d *Advisor) Forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.vms[id]
	if w == nil {
		return
	}
	delete(d.vms, id)
	d.drop(vmKey(id))
	d.bequeath(w, time.Now())
}

// bequeath merges a VM's profile into that of its template. The caller holds d.mu.
func (d *Advisor) bequeath(w *watched, now time.Time) {
	if w.template == "" || w.profile.Seen == 0 {
		return
	}
	t := d.templates[w.template]
	if t == nil {
		t = &template{profile: autoscale.NewProfile(w.profile.Born)}
		d.templates[w.template] = t
		delete(d.gone, templateKey(w.template))
	}
	t.profile.Merge(w.profile)
	t.used, t.unsaved = now, true
	d.bound()
}

// bound forgets the templates used longest ago. The caller holds d.mu.
func (d *Advisor) bound() {
	for len(d.templates) > mostTemplates {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(d.templates)), func(x, y string) int {
			return cmp.Or(d.templates[x].used.Compare(d.templates[y].used), cmp.Compare(x, y))
		})
		delete(d.templates, oldest)
		d.drop(templateKey(oldest))
	}
}

// drop has a record deleted at the next save. The caller holds d.mu.
func (d *Advisor) drop(key string) {
	d.gone[key] = struct{}{}
}

// profile is a copy of what is known of a VM and of its template's others; nil when
// that is nothing.
func (d *Advisor) profile(id string) *autoscale.Profile {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.vms[id]
	if w == nil {
		return nil
	}
	p := clone(w.profile)
	if t := d.templates[w.template]; t != nil {
		p.Merge(t.profile)
	}
	return p
}

// clone copies a profile, the peaks of the present five minutes counted.
func clone(p *autoscale.Profile) *autoscale.Profile {
	c := autoscale.NewProfile(p.Born)
	c.Merge(p)
	return c
}

// lately is what a VM did in the last minutes; ok is false before it has been seen
// for so long.
func (d *Advisor) lately(id string, least time.Duration) (s lately, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.vms[id]
	if w == nil {
		return s, false
	}
	return w.recent.lately(least)
}

// hostBusy is the share of the host's cores that was busy in the last minutes.
func (d *Advisor) hostBusy(least time.Duration) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.host.lately(least)
	return s.cpus
}
