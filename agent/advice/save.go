package advice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/store"
)

// saveProfilesEvery is how much of what VMs have used a killed agent forgets at most.
const saveProfilesEvery = 5 * time.Minute

// profileVersion changes when old records mean something else.
const profileVersion = 1

// profileRecord is a stored profile: of a VM, or of a template when VM is empty.
type profileRecord struct {
	Version  int                `json:"version"`
	VM       string             `json:"vm,omitempty"`
	Template string             `json:"template,omitempty"`
	Used     time.Time          `json:"used"` // of a template
	Profile  *autoscale.Profile `json:"profile"`
}

func vmKey(id string) string         { return "vm/" + id }
func templateKey(name string) string { return "template/" + name }

func (r *profileRecord) key() string {
	if r.VM != "" {
		return vmKey(r.VM)
	}
	return templateKey(r.Template)
}

var errProfile = errors.New("not a profile")

// parseProfile reads a stored profile.
func parseProfile(key string, raw []byte) (r profileRecord, err error) {
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, err
	}
	switch {
	case r.Version != profileVersion:
		return r, fmt.Errorf("%w of this version: %d, not %d", errProfile, r.Version, profileVersion)
	case r.Profile == nil:
		return r, errProfile
	case r.key() != key:
		return r, fmt.Errorf("%w of %s: it is of %s", errProfile, fault.Quote(key), fault.Quote(r.key()))
	}
	return r, nil
}

// Run saves profiles now and then, and once more when ctx ends.
func (d *Advisor) Run(ctx context.Context) {
	tick := time.NewTicker(saveProfilesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			d.save()
			return
		case <-tick.C:
			d.save()
		}
	}
}

// save stores what has changed in one commit. Samples do not wait for the disk.
func (d *Advisor) save() {
	records, gone := d.takeUnsaved()
	changes := make([]store.Change, 0, len(records)+len(gone))
	for _, key := range gone {
		changes = append(changes, store.Delete(store.Profiles, key))
	}
	for i := range records {
		r := &records[i]
		b, err := json.Marshal(r) // not in the transaction, where others wait
		if err != nil {
			d.cfg.Log.Warn("save profile", "key", r.key(), "err", err)
			continue
		}
		changes = append(changes, store.Put(store.Profiles, r.key(), json.RawMessage(b)))
	}
	if len(changes) == 0 {
		return
	}
	err := d.cfg.Store.Room() // what is kept back is not for them
	if err == nil {
		err = d.cfg.Store.Commit(changes...)
	}
	if err != nil {
		d.cfg.Log.Error("save profiles", "err", err)
		d.putUnsaved(records, gone)
	}
}

// takeUnsaved copies what has changed: templates and what is gone at one moment, then
// VM by VM, so that samples wait for one copy only. A VM that goes in between is still
// stored as one, or as it was before, and is no part of its template: what is stored
// counts everything once.
func (d *Advisor) takeUnsaved() (records []profileRecord, gone []string) {
	records, gone, ids := d.takeTemplates()
	for _, id := range ids {
		if r, ok := d.takeVM(id); ok {
			records = append(records, r)
		}
	}
	return records, gone
}

func (d *Advisor) takeTemplates() (records []profileRecord, gone, vms []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, t := range d.templates {
		if t.unsaved {
			t.unsaved = false
			records = append(records, profileRecord{Version: profileVersion, Template: name, Used: t.used, Profile: clone(t.profile)})
		}
	}
	for id, w := range d.vms {
		if w.unsaved {
			vms = append(vms, id)
		}
	}
	gone = slices.Collect(maps.Keys(d.gone))
	d.gone = map[string]struct{}{}
	return records, gone, vms
}

func (d *Advisor) takeVM(id string) (r profileRecord, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.vms[id]
	if w == nil {
		return r, false
	}
	w.unsaved = false
	return profileRecord{Version: profileVersion, VM: id, Template: w.template, Profile: clone(w.profile)}, true
}

// putUnsaved has another try at what could not be saved.
func (d *Advisor) putUnsaved(records []profileRecord, gone []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range records {
		r := &records[i]
		if w := d.vms[r.VM]; w != nil {
			w.unsaved = true
		}
		if t := d.templates[r.Template]; t != nil && r.VM == "" {
			t.unsaved = true
		}
	}
	for _, key := range gone {
		if name, ok := strings.CutPrefix(key, "template/"); !ok || d.templates[name] == nil { // it may have come back meanwhile
			d.drop(key)
		}
	}
}

// Load takes over what an earlier agent knew. What cannot be read is dropped; what is of
// VMs that are not there any more goes to their templates.
func (d *Advisor) Load() {
	all, err := d.cfg.Store.Raw(store.Profiles)
	if err != nil {
		d.cfg.Log.Warn("load profiles", "err", err)
		return
	}
	keys := slices.Sorted(maps.Keys(all)) // templates before VMs
	view := d.cfg.State.View()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range keys {
		r, err := parseProfile(key, all[key])
		if err != nil {
			d.cfg.Log.Warn("drop profile", "key", fault.Quote(key), "err", err)
			d.drop(key)
			continue
		}
		v := view.VM(r.VM)
		if v != nil {
			r.Template = v.Labels[TemplateLabel]
		}
		d.load(r, v != nil)
	}
	d.bound()
}

// load takes one record. The caller holds d.mu.
func (d *Advisor) load(r profileRecord, exists bool) {
	switch {
	case r.VM == "":
		d.templates[r.Template] = &template{profile: r.Profile, used: r.Used}
	case exists:
		d.vms[r.VM] = &watched{template: r.Template, profile: r.Profile}
	default:
		d.drop(r.key())
		d.bequeath(&watched{template: r.Template, profile: r.Profile}, time.Now())
	}
}
