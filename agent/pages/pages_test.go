package pages

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
	"cloudflash/agent/state/statetest"
	"cloudflash/pagemap"

	"github.com/google/go-cmp/cmp"
)

func TestViewMemory(t *testing.T) {
	p := &Pages{scannerErr: errors.New("no kpageflags")}
	totals := pagemap.Totals{PageSize: 4096, HugeOrder: 1, Span: 120, Total: 100, Absent: 20, Free: 40, Fragmented: 10, Uninitialised: 5, Used: 55,
		Reserved: 3, Residual: -2, HugeBlocks: 15, Fragmentation: 0.25, HasFree: true,
		Zones: []pagemap.ZoneTotals{{Zone: pagemap.Zone{Name: "Normal", Present: 100, Managed: 97}, FreeList: pagemap.FreeList{Zone: "Normal", Blocks: []uint64{10, 15}}}}}
	m := p.viewMemory(totals, time.Unix(1, 0))
	if m.UsedPages+m.FreePages+m.UninitialisedPages != m.TotalPages || m.TotalPages+m.AbsentPages != m.SpanPages {
		t.Errorf("%+v does not add up", m)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"at":"1970-01-01T00:00:01Z","page_size":4096,"span_pages":120,"total_pages":100,"total_bytes":409600,"free_pages":40,"free_bytes":163840,` +
		`"used_pages":55,"used_bytes":225280,"fragmented_pages":10,"absent_pages":20,"uninitialised_pages":5,"reserved_pages":3,"residual_pages":-2,` +
		`"mem_total_bytes":0,"mem_free_bytes":0,"huge_order":1,"huge_block_bytes":8192,"fragmentation_ratio":0.25,` +
		`"worst_zone":{"node":0,"zone":"Normal","fragmentation_ratio":0.25},"free_huge_blocks":15,"compactable_ratio":null,` +
		`"zones":[{"node":0,"zone":"Normal","free_pages":40,"present_pages":100,"managed_pages":97,"free_blocks":[10,15],"unusable_free_ratio":[0,0.25]}],` +
		`"scan":{"state":"unavailable","reason":"no kpageflags","pages_scanned":0,"pages":0,"started_at":null,"finished_at":null,"age_seconds":null,` +
		`"cpu_ratio":0,"budget_ratio":0,"cpu_seconds":0,"passes":0,"full":null},"map":null}`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	totals.HasFree, totals.Worst = false, -1
	if m := p.viewMemory(totals, time.Unix(1, 0)); m.FragmentationRatio != nil || m.WorstZone != nil {
		t.Errorf("nothing is free: %+v", m)
	}
}

func TestWithoutPageFiles(t *testing.T) {
	p := &Pages{scannerErr: errors.New("no kpageflags")}
	_, mapErr := p.Map(0, 0, 1, "")
	_, _, ownersErr := p.Owners()
	_, scanErr := p.Scan()
	for _, err := range []error{mapErr, ownersErr, scanErr} {
		var e *fault.Error
		if !errors.As(err, &e) || !errors.Is(err, fault.ErrUnsupported) || e.Code != "unsupported" {
			t.Errorf("%v", err)
		}
	}
	if err := p.CancelScan(); !errors.Is(err, fault.ErrConflict) {
		t.Error(err)
	}
	if _, err := p.Look(); !errors.Is(err, fault.ErrNotYet) {
		t.Error(err)
	}
	p.countersErr = errors.New("no buddyinfo")
	if _, err := p.Look(); !errors.Is(err, fault.ErrUnsupported) {
		t.Error(err)
	}
	if p.scanFailed() == nil {
		t.Error("the scan is well")
	}
	if ok, detail, fix := p.Check(); ok || detail == "" || fix == "" {
		t.Errorf("%v %q %q", ok, detail, fix)
	}
}

// Nobody who asks an agent that answers is told that there are no numbers yet.
func TestNumbersAreThereFromTheStart(t *testing.T) {
	db, _ := statetest.Open(t, t.TempDir())
	p := Open(Config{Log: slog.New(slog.DiscardHandler), State: db, Budget: -1, Report: func(time.Duration, error) {}, Changed: func() {}})
	t.Cleanup(func() { _ = p.Close() })
	if p.countersErr != nil {
		t.Skipf("this host has none: %v", p.countersErr)
	}
	if m, err := p.Look(); err != nil || m.TotalPages == 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

// What was scanned as a VM's is a leftover once the VM is gone.
func TestOwnerNow(t *testing.T) {
	names := map[string]string{"v1": "web"}
	for owner, want := range map[string]string{"v1": "v1", "v2": OwnerDeleted, OwnerHost: OwnerHost, OwnerDeleted: OwnerDeleted} {
		if got := ownerNow(names, owner); got != want {
			t.Errorf("%s is %s, want %s", owner, got, want)
		}
	}
}

// One look at a time: others wait for a while, or until their request ends.
func TestOneLookAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pages{looking: make(chan struct{}, 1)}
		if err := p.beginLook(t.Context()); err != nil {
			t.Fatal(err)
		}
		var e *fault.Error
		if err := p.beginLook(t.Context()); !errors.As(err, &e) || !errors.Is(err, fault.ErrNotYet) || e.Code != "busy" {
			t.Errorf("while another looks: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), lookWait/2)
		defer cancel()
		if err := p.beginLook(ctx); !errors.As(err, &e) || e.Code != "request_ended" {
			t.Errorf("when the request ends: %v", err)
		}
		go func() {
			time.Sleep(lookWait / 2)
			p.endLook()
		}()
		if err := p.beginLook(t.Context()); err != nil {
			t.Errorf("when the other is done: %v", err)
		}
		p.endLook()
	})
}

func TestMappingsOfWhatIsNotThere(t *testing.T) {
	db, _ := statetest.Open(t, t.TempDir())
	statetest.Change(t, db, func(tx *state.Tx) { tx.PutVM(state.VM{ID: "v1", Name: "web"}) })
	p := &Pages{cfg: Config{State: db}, looking: make(chan struct{}, 1)}
	for _, c := range []struct {
		ref  string
		pid  int
		code string
	}{{"nope", 1, "vm_not_found"}, {"web", 0, "process_not_found"}, {"web", -1, "process_not_found"}, {"web", 1 << 22, "process_not_found"}} {
		var e *fault.Error
		if _, err := p.Mappings(t.Context(), c.ref, c.pid); !errors.As(err, &e) || !errors.Is(err, fault.ErrNotFound) || e.Code != c.code {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if len(p.looking) != 0 {
		t.Error("somebody still looks")
	}
}
