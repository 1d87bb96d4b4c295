package agent

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"cloudflash/agent/autoscale"
)

// templateLabel is the label that says what kind of VM one is: what was seen of
// those with the same value counts for a new one too.
const templateLabel = "template"

// mostTemplates are remembered; those used longest ago are forgotten first.
const mostTemplates = 256

// longestLook is what one look at a VM may stand for. Of a longer gap, such as a
// suspended machine, nobody knows what was used in it.
const longestLook = 10 * time.Second

// advisor remembers what VMs have used: for how they should have been asked for,
// which takes days, and for what ails them now, which takes minutes. It may be used
// before anything was loaded. Its lock is taken after Agent.held, never before.
type advisor struct {
	mu        sync.Mutex // guards what follows
	vms       map[string]*watched
	templates map[string]*template
	host      recent              // of the host, CPU only
	busy      float64             // core-seconds since the agent started, as shares of the host
	gone      map[string]struct{} // keys of records to delete
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

// look takes what the meter says of a VM, once a second. Here a VM becomes known.
func (d *advisor) look(id, template string, u *Usage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.vms[id]
	if w == nil {
		w = &watched{template: template, profile: autoscale.NewProfile(u.At)}
		if d.vms == nil {
			d.vms = map[string]*watched{}
		}
		d.vms[id] = w
		if t := d.templates[template]; t != nil {
			t.used, t.unsaved = u.At, true
		}
	}
	w.recent.add(markOf(u))
}

// lookHost takes what share of its cores the host was busy with since the last time.
func (d *advisor) lookHost(at time.Time, busy float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dt := at.Sub(d.host.last.at); dt > 0 && dt <= longestLook {
		d.busy += busy * dt.Seconds()
	}
	d.host.add(mark{at: at, cpu: d.busy})
}

// add counts what a VM would have used in the time dt up to at without its limits, as
// Scaler.Needs tells. VMs that the meter has not shown yet, and those that are gone,
// are passed over.
func (d *advisor) add(id string, at time.Time, dt time.Duration, needs autoscale.Limits, known [autoscale.Resources]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.vms[id]; w != nil && dt <= longestLook {
		w.profile.Add(at, dt, needs, known)
		w.unsaved = true
	}
}

// oom counts a kill for want of memory with so many bytes in use.
func (d *advisor) oom(id string, at time.Time, used float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.vms[id]; w != nil {
		w.profile.OOM(at, used)
		w.unsaved = true
	}
}

// forget leaves what was seen of a VM that is deleted to its template.
func (d *advisor) forget(id string) {
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
func (d *advisor) bequeath(w *watched, now time.Time) {
	if w.template == "" || w.profile.Seen == 0 {
		return
	}
	t := d.templates[w.template]
	if t == nil {
		t = &template{profile: autoscale.NewProfile(w.profile.Born)}
		if d.templates == nil {
			d.templates = map[string]*template{}
		}
		d.templates[w.template] = t
		delete(d.gone, templateKey(w.template))
	}
	t.profile.Merge(w.profile)
	t.used, t.unsaved = now, true
	d.bound()
}

// bound forgets the templates used longest ago. The caller holds d.mu.
func (d *advisor) bound() {
	for len(d.templates) > mostTemplates {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(d.templates)), func(x, y string) int {
			return cmp.Or(d.templates[x].used.Compare(d.templates[y].used), cmp.Compare(x, y))
		})
		delete(d.templates, oldest)
		d.drop(templateKey(oldest))
	}
}

// drop has a record deleted at the next save. The caller holds d.mu.
func (d *advisor) drop(key string) {
	if d.gone == nil {
		d.gone = map[string]struct{}{}
	}
	d.gone[key] = struct{}{}
}

// profile is a copy of what is known of a VM and of its template's others; nil when
// that is nothing.
func (d *advisor) profile(id string) *autoscale.Profile {
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
func (d *advisor) lately(id string, least time.Duration) (s lately, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.vms[id]
	if w == nil {
		return s, false
	}
	return w.recent.lately(least)
}

// hostBusy is the share of the host's cores that was busy in the last minutes.
func (d *advisor) hostBusy(least time.Duration) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.host.lately(least)
	return s.cpus
}
