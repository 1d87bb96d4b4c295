package main

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/pages"
	"cloudflash/cmd/cloudflash/systemtest"
)

const memory = "/api/v1/memory"

// pagesOf scans everything and returns what an owner has then.
func pagesOf(s *systemtest.Agent, owner string) pages.MemoryOwner {
	s.T.Helper()
	s.Out("mem", "scan")
	for _, o := range systemtest.JSON[struct{ Owners []pages.MemoryOwner }](s, "api", "GET", memory+"/owners").Owners {
		if o.Owner == owner || o.Name == owner {
			return o
		}
	}
	return pages.MemoryOwner{}
}

func TestKernelMemoryIsOwned(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--memory", "512MiB")
	s.Out("vm", "create", "quiet", "--memory", "64MiB")
	id := s.VM("web").ID
	// dd touches its buffer and then waits for a reader: 256 MiB and next to nothing
	// more, where burn has the bookkeeping of Go's heap as well.
	hold := func(name, size string) {
		s.Out("cloudlet", "submit", "--vm", "web", "--name", name, "--", "sh", "-c", "dd if=/dev/zero bs="+size+" count=1 | exec sleep 3600")
		s.Await(name, agent.CloudletRunning)
	}
	hold("empty", "256K")
	s.Looks(1)
	before := pagesOf(s, "web")
	hold("hold", "256M")
	systemtest.Until(t, "256 MiB are held", func() bool {
		n, _ := strconv.ParseInt(s.ControlFile(s.VM("web"), "memory.current"), 10, 64)
		return n > 256<<20
	})
	s.Looks(2) // and dd is at rest
	during := pagesOf(s, "web")
	t.Logf("web has %d pages, had %d before: %+v", during.Pages, before.Pages, during)
	if grew := during.Pages - before.Pages; grew < 65536*98/100 || grew > 65536*102/100 {
		t.Errorf("256 MiB are %d pages", grew)
	}
	if during.ResidualBytes > 16<<20 || during.ResidualBytes < -16<<20 {
		t.Errorf("residual of %d bytes: %+v", during.ResidualBytes, during)
	}
	everyPageOnce(s, id, during.Pages)
	zoomed(s, id)
	mapped(s, "web")
	t.Log("\n" + s.Out("mem", "summary") + s.Out("mem", "owners") + s.Out("mem", "map", "--mode", "owner", "--cells", "512"))

	s.Out("cloudlet", "cancel", "hold")
	s.Run("cloudlet", "wait", "hold")
	after := pagesOf(s, "web")
	t.Logf("after it ended: %d pages", after.Pages)
	if after.Pages > before.Pages+65536*2/100 {
		t.Errorf("%d pages stay", after.Pages-before.Pages)
	}
	s.Out("vm", "delete", "web", "--grace", "0s")
	if gone := pagesOf(s, "web"); gone.Pages != 0 || gone.Owner != "" {
		t.Errorf("the deleted VM is listed: %+v", gone)
	}
	t.Logf("left by deleted VMs: %d pages", pagesOf(s, pages.OwnerDeleted).Pages)
}

// everyPageOnce checks that each page frame is counted once.
func everyPageOnce(s *systemtest.Agent, id string, count int64) {
	s.T.Helper()
	m := systemtest.Must[pages.Memory](s, "GET", memory, nil)
	var owned int64
	for _, n := range m.Map.Owners {
		owned += n
	}
	if owned != m.Map.UsedPages {
		s.T.Errorf("owners have %d pages, %d are used", owned, m.Map.UsedPages)
	}
	if sum := owned + m.Map.FreePages + m.Map.UninitialisedPages; sum != m.TotalPages {
		s.T.Errorf("owners %d, free %d, uninitialised %d are %d, not the %d there are", owned, m.Map.FreePages,
			m.Map.UninitialisedPages, sum, m.TotalPages)
	}
	picture := systemtest.JSON[pages.MemoryMap](s, "api", "GET", memory+"/map?cells=4096&owner="+id)
	var all, of int64
	for _, c := range picture.Cells {
		all += c.Free + c.Used + c.Absent + c.Uninitialised
		of += c.Owned
		if c.Unknown > 0 {
			s.T.Errorf("cell %d is unknown after a whole pass", c.First)
		}
	}
	if all != picture.Span || picture.Span < m.SpanPages {
		s.T.Errorf("cells have %d frames of %d, the map %d", all, picture.Span, m.SpanPages)
	}
	if d := of - count; d > 655 || d < -655 { // 1 %: the rolling scan goes on
		s.T.Errorf("cells give %d pages to the VM, the list of owners %d", of, count)
	}
	s.T.Logf("total %d = used %d + free %d + uninitialised %d; absent %d; residual %d; reserved %d; fragmentation %.4f", m.TotalPages, m.UsedPages, m.FreePages,
		m.UninitialisedPages, m.AbsentPages, m.ResidualPages, m.ReservedPages, *m.FragmentationRatio)
	if m.UsedPages+m.FreePages+m.UninitialisedPages != m.TotalPages || m.TotalPages+m.AbsentPages != m.SpanPages {
		s.T.Errorf("%+v does not add up", m)
	}
}

// zoomed checks that single pages have the owner of the cell they make up.
func zoomed(s *systemtest.Agent, id string) {
	s.T.Helper()
	blocks := systemtest.JSON[pages.MemoryMap](s, "api", "GET", memory+"/map?cells=1024&owner="+id)
	for _, c := range blocks.Cells {
		if c.Owned < blocks.PagesPerCell*9/10 {
			continue
		}
		single := systemtest.JSON[pages.MemoryMap](s, "api", "GET", memory+fmt.Sprintf("/map?from=%d&span=512&cells=512&owner=%s", c.First, id))
		var owned int64
		for _, p := range single.Cells {
			owned += p.Owned
		}
		if single.PagesPerCell != 1 || len(single.Cells) != 512 || owned < 300 {
			s.T.Errorf("%d pages of %d of the VM when looked at one by one, %d of the cell", owned, len(single.Cells), c.Owned)
		}
		return
	}
	s.T.Error("the VM has no cell nearly to itself")
}

// mapped checks that the drill-down finds the memory where the process has it.
func mapped(s *systemtest.Agent, vm string) {
	s.T.Helper()
	all := systemtest.JSON[struct{ Processes []pages.MemoryProcess }](s, "api", "GET", memory+"/owners/"+vm+"/processes").Processes
	if len(all) < 3 {
		s.T.Fatalf("processes %+v", all)
	}
	pid := all[0].PID // the largest
	p := systemtest.JSON[pages.MemoryProcess](s, "api", "GET", memory+fmt.Sprintf("/owners/%s/processes/%d", vm, pid))
	var present int64
	for _, m := range p.Mappings {
		present += m.Present
	}
	s.T.Logf("%s, process %d: %d pages present in %d mappings, %d MiB resident", p.Name, pid, present, len(p.Mappings), p.ResidentBytes>>20)
	if present < 65536 || p.Name != "dd" {
		s.T.Errorf("%d pages present in %q", present, p.Name)
	}
	if _, _, code := s.Run("mem", "processes", "quiet", strconv.Itoa(pid)); code != 3 {
		s.T.Errorf("a process of another VM: exit code %d, want 3", code)
	}
	if _, _, code := s.Run("mem", "processes", vm, "1"); code != 3 {
		s.T.Errorf("a process of the host: exit code %d, want 3", code)
	}
}

// The rolling scan keeps to its budget and goes through on its own.
func TestSystemRollingScan(t *testing.T) {
	s := systemtest.Start(t)
	systemtest.Until(t, "the scan rolls", func() bool { return systemtest.Must[pages.Memory](s, "GET", memory, nil).Scan.PagesScanned > 0 })
	at, began := time.Now(), systemtest.Must[pages.Memory](s, "GET", memory, nil).Scan
	s.Looks(5)
	now := systemtest.Must[pages.Memory](s, "GET", memory, nil).Scan
	t.Logf("%+v\n%+v", began, now)
	// 1 % of the time, and one burst more, which a busy emulator makes long.
	if spent, took := now.CPUSeconds-began.CPUSeconds, time.Since(at).Seconds(); spent > 0.01*took+0.2 {
		t.Errorf("%.3f s of CPU in %.1f s", spent, took)
	}
	if now.State != "rolling" && now.Passes == 0 {
		t.Errorf("state %s", now.State)
	}
}
