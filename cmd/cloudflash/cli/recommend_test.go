package cli

import (
	"strings"
	"testing"

	"cloudflash/agent/advice"
)

func TestRecommendVerbsAskAndPrint(t *testing.T) {
	for name, c := range map[string]struct {
		args, asked, body, out string
		code                   int
	}{
		"all":             {"recommend", "GET /api/v1/recommendations?limit=1000", "", "db    cpus             2      0.5     1.5    yes   90 % of the time", 0},
		"little is known": {"recommend web", "GET /api/v1/recommendations/web", "", "web  cpus   2     0.5?    1.5    wait  little is known yet: 12m of history\n", 0},
		"findings":        {"recommend db", "GET /api/v1/recommendations/db", "", "db  throttled                              db used up its own limit", 0},
		"host":            {"recommend host", "GET /api/v1/recommendations/host", "", "huge pages are hard", 0},
		"wide":            {"recommend -o wide", "GET /api/v1/recommendations?limit=1000", "", "UPPER", 0},
		"csv":             {"recommend web -o csv", "GET /api/v1/recommendations/web", "", "vm,about,spec,target,lower,upper,saves,confidence,take,says,template,id\nweb,cpus,2,0.5?,0.5,8,1.5,0.8 %,wait,little is known yet: 12m of history,,v1\n", 0},
		"json":            {"recommend -o json", "GET /api/v1/recommendations?limit=1000", "", `"history_seconds": 259200`, 0},
		"jsonl":           {"recommend -o jsonl", "GET /api/v1/recommendations?limit=1000", "", `{"vm":"v1","vm_name":"web"`, 0},
		"yaml":            {"recommend web -o yaml", "GET /api/v1/recommendations/web", "", "vm_name: web", 0},
		"name":            {"recommend -o name", "GET /api/v1/recommendations?limit=1000", "", "db\nhost\nweb\n", 0},
		"of nobody":       {"recommend zz", "GET /api/v1/recommendations/zz", "", "", ExitNotFound},
		"of two":          {"recommend db web", "", "", "", ExitUsage},
		"apply":           {"recommend apply db", "POST /api/v1/recommendations/db/actions/apply", "", "db cpus 2 → 0.5, saves 1.5\n", 0},
		"apply some":      {"recommend apply db cpus memory rbps zz", "POST /api/v1/recommendations/db/actions/apply", `{"resources":["cpus","memory_bytes","rbps","zz"]}`, "db cpus 2 → 0.5, saves 1.5\n", 0},
		"apply, json":     {"recommend apply db -o json", "POST /api/v1/recommendations/db/actions/apply", "", `"cpus": 0.5,`, 0},
		"apply nothing":   {"recommend apply web", "POST /api/v1/recommendations/web/actions/apply", "", "", ExitConflict},
		"apply to none":   {"recommend apply", "", "", "", ExitUsage},
		"undo nothing":    {"recommend undo db", "GET /api/v1/recommendations/db", "", "", ExitConflict},
		"undo of none":    {"recommend undo", "", "", "", ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			r := withAll(t)
			got := r.run(strings.Fields(c.args)...)
			if got.Code != c.code || !strings.Contains(got.Out, c.out) {
				t.Errorf("%+v, want %d with %q", got, c.code, c.out)
			}
			var asked request
			if all := r.requests(); len(all) > 0 {
				asked = all[0]
			}
			if asked.Line != c.asked || asked.Body != c.body {
				t.Errorf("asked %+v, want %q with %q", asked, c.asked, c.body)
			}
		})
	}
}

// One of which little is known yet is one line, unless it is asked for.
func TestLittleKnownIsOneLine(t *testing.T) {
	var out, err strings.Builder
	a := &app{Process: Process{Out: &out, Err: &err}, output: "table"}
	v := advice.Advice{VMName: "web", HistorySeconds: 46,
		Recommendations: []advice.Recommendation{{Resource: "cpus", Spec: 1}, {Resource: "memory_bytes", Spec: 1}},
		Findings:        []advice.Finding{{Kind: "throttled", Text: "web is throttled"}}}
	if e := a.printAdvice([]advice.Advice{v}, true); e != nil {
		t.Fatal(e)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[1], "throttled") || !strings.Contains(lines[2], "wait  little is known yet: 46s of history; cloudflash recommend web") {
		t.Errorf("%q", lines)
	}
	out.Reset()
	if e := a.printAdvice([]advice.Advice{v}, false); e != nil || strings.Count(out.String(), "\n") != 4 {
		t.Errorf("%v %q", e, out.String())
	}
	out.Reset()
	if e := a.printAdvice(nil, true); e != nil || out.Len() > 0 || err.String() != "nothing to recommend yet\n" {
		t.Errorf("%v %q %q", e, out.String(), err.String())
	}
}

func TestUndoSaysWhatIsBack(t *testing.T) {
	r := withAll(t)
	if got := r.run("recommend", "apply", "db"); got.Code != 0 || !strings.Contains(got.Err, "recommend undo db") {
		t.Fatalf("%+v", got)
	}
	if got := r.run("recommend", "undo", "db"); got.Code != 0 || got.Out != "db cpus 0.5 → 2, takes 1.5 more\n" {
		t.Errorf("%+v", got)
	}
}

func TestAmountsOfUnknownResources(t *testing.T) {
	if got := difference("qubits", 1.5); got != "1.5" {
		t.Error(got)
	}
	if got := difference("memory_bytes", -(1 << 20)); got != "-1 MiB" {
		t.Error(got)
	}
}
