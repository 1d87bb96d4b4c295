package agent

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

// A VM that fills its memory limit with what cannot be dropped should meet the
// kernel's OOM killer. It may not for minutes (seen on Linux 6.1 and 6.12): as
// long as reclaim finds pages of the program itself, which is read back at once,
// the kernel takes that for progress. Meanwhile the VM stands still, and reads
// from the disk without end. What systemd-oomd does for a whole host by pressure
// is done here for one VM: by pressure, with next to nothing left to reclaim, and
// only where that little is read again and again. One that is full and writes,
// or reads files once, waits for memory too, but gets on.
const (
	thrashFull     = 0.98            // memory.current, of the limit
	thrashCache    = 0.03            // page cache, of the limit
	thrashWaiting  = 0.3             // of the time, some task waited for memory
	thrashRefaults = 4               // times the whole cache was read back since the last sample
	thrashSamples  = 4               // in a row
	thrashGap      = 3 * time.Second // a longer one between samples proves nothing
)

// thrash watches one VM for it.
type thrash struct {
	at       time.Time // of the last sample
	waiting  float64   // MemoryWaitingSeconds then
	refaults int64     // bytes, at the last look at the cache; -1: none yet
	times    int       // samples in a row
}

// cache is the page cache of a slice that is backed by files, in bytes.
type cache struct{ size, unwritten, refaults int64 }

// observe takes a new sample and tells whether the VM has thrashed for long
// enough. Look is called only when all else speaks for it.
func (t *thrash) observe(u Usage, limit int64, look func() (cache, error)) bool {
	took, waited := u.At.Sub(t.at), u.MemoryWaitingSeconds-t.waiting
	if took <= 0 {
		return false // no news
	}
	t.at, t.waiting = u.At, u.MemoryWaitingSeconds
	if took > thrashGap || float64(u.MemoryBytes) < thrashFull*float64(limit) || waited < thrashWaiting*took.Seconds() {
		t.times, t.refaults = 0, -1
		return false
	}
	c, err := look()
	if err != nil || float64(c.size) > thrashCache*float64(limit) || c.unwritten > c.size/2 {
		t.times, t.refaults = 0, -1
		return false
	}
	again := c.refaults - t.refaults
	first := t.refaults < 0
	t.refaults = c.refaults
	switch {
	case first:
	case again < thrashRefaults*c.size || again == 0:
		t.times = 0
	default:
		t.times++
	}
	return t.times >= thrashSamples
}

// endThrash kills the biggest cloudlet of every VM that thrashes.
func (a *Agent) endThrash() {
	s := a.state.View()
	for _, v := range a.vmList() {
		running := v.in(s).State == VMRunning
		a.held.Lock()
		limit, use, ok := v.limits.MemoryBytes, v.usage, running && v.probe != nil
		a.held.Unlock()
		if !ok || limit == nil || !v.thrash.observe(use, *limit, func() (cache, error) { return cacheOf(v.slice) }) {
			continue
		}
		v.thrash = thrash{}
		if id, size := biggest(v); id != "" {
			a.killThrashing(v, id, size)
		}
	}
}

func cacheOf(o *cgroup.Slice) (cache, error) {
	r, err := o.OpenReader()
	if err != nil {
		return cache{}, err
	}
	defer r.Close()
	m, err := r.MemoryStat()
	return cache{size: int64(m.ActiveFile + m.InactiveFile), unwritten: int64(m.FileDirty + m.FileWriteback),
		refaults: int64(m.RefaultFile) * int64(os.Getpagesize())}, err
}

// biggest is the cloudlet or session with the most memory.
func biggest(v *vm) (id string, size int64) {
	names, _ := v.slice.Scopes() // a VM that is gone has none
	for _, name := range names {
		is, ok := strings.CutPrefix(name, scopeName(""))
		if !ok {
			continue // its init
		}
		r, err := v.slice.Scope(name).OpenReader()
		if err != nil {
			continue
		}
		if n, err := r.MemoryCurrent(); err == nil && n > size {
			id, size = is, n
		}
		_ = r.Close()
	}
	return id, size
}

// killThrashing stores why before it kills: the exit may be read by another agent.
func (a *Agent) killThrashing(v *vm, id string, size int64) {
	said := "VM %s stood still at its memory limit, reading its programs again and again: %s, with %d MiB, is killed"
	e := Event{Level: LevelWarn, Kind: "vm.thrashing", VM: v.ID, Data: map[string]any{"memory_bytes": size, "seconds": thrashSamples}}
	ending := false
	err := a.state.UpdateAnyway(func(tx *state.Tx) error {
		a.held.Lock()
		defer a.held.Unlock()
		c, hold, s := tx.Cloudlet(id), a.cloudlets[id], a.sessions[id]
		switch {
		case c != nil && hold != nil && !c.State.Final() && c.Stop == "":
			rec := *c
			rec.Stop, rec.StoppingBoot = stopOOM, clock.SinceBoot()
			tx.PutCloudlet(rec)
			e.Cloudlet, e.Message = id, fmt.Sprintf(said, v.Name, "cloudlet "+c.Name, size>>20)
		case s != nil:
			s.oom = true
			e.Message = fmt.Sprintf(said, v.Name, "a command of vm exec", size>>20)
		default:
			ending = true
			return nil
		}
		rec := *v.in(tx.View)
		rec.Thrashed++
		tx.PutVM(rec)
		tx.Tell(e)
		return nil
	})
	if err != nil || ending {
		return // it is tried again when it has thrashed on
	}
	a.held.Lock()
	if hold := a.cloudlets[id]; hold != nil {
		hold.killing = true
	}
	a.held.Unlock()
	scope := v.slice.Scope(scopeName(id))
	a.spawn(func(ctx context.Context) {
		if err := ignoreGone(scope.Kill(ctx)); err != nil {
			a.log.Error("kill what thrashes", "vm", v.Name, "err", err)
		}
	})
}
