package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"cloudflash/agent/guest"
	"cloudflash/agent/store"
)

// sampleStale is the age at which the last sample counts as old.
const sampleStale = 5 * sampleEvery

// Health tries what the agent lives by: a cgroup can be made, the store takes a
// write, the sampler is fresh, every init answers.
func (a *Agent) Health(ctx context.Context) []Check {
	return []Check{
		check("cgroup", a.cgroupWritable(), "a group was made and removed in "+a.parent.Dir()),
		check("store", a.storeWritable(), "one record written and synced"),
		a.samplerCheck(),
		a.guestsCheck(ctx),
		a.storageCheck(),
	}
}

// HostChecks is Health and what this host could have more.
func (a *Agent) HostChecks(ctx context.Context) []Check {
	checks, network := append(a.Health(ctx), a.pagesCheck()), a.networkCheck()
	units, notes := a.platform.GPUs()
	c := Check{Name: "gpus", OK: true, Detail: fmt.Sprintf("%d can be given to VMs", len(units))}
	if len(notes) > 0 {
		c.Detail = strings.Join(notes, "; ")
	}
	return append(checks, network, c)
}

func (a *Agent) pagesCheck() Check {
	ok, detail, fix := a.Pages.Check()
	return Check{Name: "pages", OK: ok, Detail: detail, Fix: fix}
}

func (a *Agent) storageCheck() Check {
	disk, err := a.platform.Storage()
	switch {
	case err != nil:
		return Check{Name: "storage", Detail: err.Error(), Fix: "see the README on storage, or serve --storage none"}
	case disk == nil:
		return Check{Name: "storage", OK: true, Detail: "storage_bytes is not enforced: --storage none"}
	}
	c, err := disk.Capacity()
	return check("storage", err, fmt.Sprintf("%s, %d of %d MiB free", disk.Backend(), c.Free>>20, c.Total>>20))
}

func (a *Agent) networkCheck() Check {
	if err := a.platform.NetworkErr(); err != nil {
		return Check{Name: "network", Detail: "VMs can only be isolated: " + err.Error(), Fix: "load the module that is missing, or create VMs with --network isolated"}
	}
	return Check{Name: "network", OK: true, Detail: "bridge " + a.cfg.Bridge + ", addresses of " + a.cfg.NetworkPool + " and " + a.cfg.NetworkULA}
}

func check(name string, err error, detail string) Check {
	if err != nil {
		return Check{Name: name, Detail: err.Error()}
	}
	return Check{Name: name, OK: true, Detail: detail}
}

// storeWritable tries a write, and whether there is room for more than what is kept back.
func (a *Agent) storeWritable() error {
	if err := a.store.Room(); err != nil {
		return err
	}
	return a.store.Commit(store.Put(store.Meta, "health", time.Now()))
}

// cgroupWritable makes and removes an empty group beside the VMs.
func (a *Agent) cgroupWritable() error {
	dir := filepath.Join(a.parent.Dir(), fmt.Sprintf("health-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.Remove(dir)
}

func (a *Agent) samplerCheck() Check {
	a.held.Lock()
	age := time.Since(a.sampledAt)
	a.held.Unlock()
	if age > sampleStale {
		return Check{Name: "sampler", Detail: fmt.Sprintf("last sample is %.1f s old", age.Seconds())}
	}
	return Check{Name: "sampler", OK: true, Detail: fmt.Sprintf("last sample is %.1f s old", age.Seconds())}
}

func (a *Agent) guestsCheck(ctx context.Context) Check {
	type one struct {
		name string
		g    *guest.Guest
	}
	var guests []one
	failed := ""
	view := a.state.View()
	for _, v := range a.vmList() {
		r, g := v.Record(view), v.Guest()
		switch {
		case r.State == VMFailed:
			failed = fmt.Sprintf("VM %s is failed: %s", v.Name, r.Reason)
		case g != nil:
			guests = append(guests, one{v.Name, g})
		}
	}

	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, o := range guests {
		wg.Go(func() {
			if err := o.g.Ping(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = fmt.Sprintf("init of VM %s does not answer: %v", o.name, err)
			}
		})
	}
	wg.Wait()

	if failed != "" {
		return Check{Name: "guests", Detail: failed}
	}
	return Check{Name: "guests", OK: true, Detail: fmt.Sprintf("%d inits answered", len(guests))}
}
