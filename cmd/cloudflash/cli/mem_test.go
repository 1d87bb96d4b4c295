package cli

import (
	"strings"
	"testing"

	"cloudflash/agent/pages"
)

func TestMemVerbsAskAndPrint(t *testing.T) {
	for name, c := range map[string]struct {
		args, asked, out string
		code             int
	}{
		"summary":            {"mem summary", "GET /api/v1/memory", "total", 0},
		"summary json":       {"mem summary -o json", "GET /api/v1/memory", `"total_pages": 1536`, 0},
		"summary csv":        {"mem summary -o csv", "GET /api/v1/memory", "total_pages,free_pages,", 0},
		"owners":             {"mem owners", "GET /api/v1/memory/owners", "db     400    0 B ", 0},
		"owners name":        {"mem owners -o name", "GET /api/v1/memory/owners", "db\n", 0},
		"owners wide":        {"mem owners -o wide", "GET /api/v1/memory/owners", "UNMAPPED", 0},
		"map":                {"mem map", "GET /api/v1/memory/map?cells=1024&from=0", "# ", 0},
		"map json":           {"mem map --from 512 --span 1024 --cells 2 --owner db -o json", "GET /api/v1/memory/map?cells=2&from=512&owner=db&span=1024", `"pages_per_cell": 512`, 0},
		"map csv":            {"mem map -o csv --no-headers", "GET /api/v1/memory/map?cells=1024&from=0", "512,100,412,100,0,0,0,7,64,400,v0\n1024,0,0,0,512,", 0},
		"map, too many":      {"mem map --cells 5000", "GET /api/v1/memory/map?cells=5000&from=0", "", ExitUsage},
		"map, no such mode":  {"mem map --mode x", "", "", ExitUsage},
		"processes":          {"mem processes db", "GET /api/v1/memory/owners/db/processes", "42   burn", 0},
		"mappings":           {"mem processes db 42", "GET /api/v1/memory/owners/db/processes/42", "1000", 0},
		"processes of none":  {"mem processes zz", "GET /api/v1/memory/owners/zz/processes", "", ExitNotFound},
		"processes, no VM":   {"mem processes", "", "", ExitUsage},
		"scan, not awaited":  {"mem scan --no-wait", "POST /api/v1/memory/scan", "", 0},
		"scan, cancelled":    {"mem scan --cancel", "DELETE /api/v1/memory/scan", "", 0},
		"map, from no frame": {"mem map --from x", "", "", ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			r := withAll(t)
			got := r.run(strings.Fields(c.args)...)
			if got.Code != c.code || !strings.Contains(got.Out, c.out) {
				t.Errorf("%+v, want %d with %q", got, c.code, c.out)
			}
			asked := ""
			if all := r.requests(); len(all) > 0 {
				asked = all[0].Line
			}
			if asked != c.asked {
				t.Errorf("asked %q, want %q", asked, c.asked)
			}
		})
	}
}

// A name of a VM must not play with the terminal, and whoever has the most pages
// of a cell gives it its letter.
func TestMapIsDrawn(t *testing.T) {
	r := withAll(t)
	for i := range r.agent.Has.VMs {
		if r.agent.Has.VMs[i].ID == "v0" {
			r.agent.Has.VMs[i].Name = "d\x1bb"
		}
	}
	got := r.run("mem", "map", "--mode", "owner")
	if want := "       200  A \n\n2 MiB a character, 512 pages; frames in hexadecimal\n  A VM d�b\n    absent\n"; got.Out != want {
		t.Errorf("%q, want %q", got.Out, want)
	}
	got = r.run("mem", "map")
	if want := "       200  # \n\n2 MiB a character, 512 pages; frames in hexadecimal\n  # used\n    absent\n"; got.Out != want {
		t.Errorf("%q, want %q", got.Out, want)
	}
}

func TestEachStateHasItsBrush(t *testing.T) {
	for want, c := range map[brush]pages.MemoryCell{
		brushFree: {Free: 10, Fragmented: 5}, brushBroken: {Free: 10, Fragmented: 6}, brushUsed: {Used: 10, Unmovable: 1}, brushMovable: {Used: 10},
		brushAbsent: {Absent: 10}, brushUninit: {Uninitialised: 10}, brushUnknown: {Unknown: 10}} {
		if got := stateBrush(c); got != want {
			t.Errorf("%+v is %+v, want %+v", c, got, want)
		}
	}
}
