package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"

	"github.com/google/go-cmp/cmp"
)

const policyPath = base + "/autoscale/policy"

func TestPolicyIsReplacedWhole(t *testing.T) {
	f := newFake(t)
	h := New(partsOf(f), options())
	w := ask(h, "PUT", policyPath+"?vm=web", `{"rules":{"cpus":{"up":0.7,"max":4},"all":{"mode":"off"}}}`)
	if w.Code != 200 || w.Header().Get("ETag") != `"2"` {
		t.Fatalf("status %d, ETag %s: %s", w.Code, w.Header().Get("ETag"), w.Body)
	}
	if got := f.Has.Scaling.Own["v1"].Rules; *got["cpus"].Up != 0.7 || *got["cpus"].Max != 4 || got["cpus"].Down != nil || *got["all"].Mode != "off" {
		t.Errorf("the agent was told %+v", got)
	}
	w = ask(h, "GET", policyPath+"?vm=v1", "")
	var p policy.Policy
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.VMName != "web" || w.Header().Get("ETag") != `"2"` {
		t.Fatalf("%v, ETag %s: %s", err, w.Header().Get("ETag"), w.Body)
	}
	if diff := cmp.Diff(f.Has.Scaling.Own["v1"], p.Own); diff != "" {
		t.Errorf("own (-set +shown)\n%s", diff)
	}
	ask(h, "PUT", policyPath+"?vm=web", `{}`)
	if got := f.Has.Scaling.Own["v1"]; got.Rules != nil || f.Has.Scaling.Versions["v1"] != 2 {
		t.Errorf("an empty layer leaves %+v", got)
	}
}

func TestPolicyIsSetOverWhatWasRead(t *testing.T) {
	for name, tt := range map[string]struct {
		ifMatch string
		status  int
		code    string
	}{
		"without":         {"", 200, ""},
		"any":             {"*", 200, ""},
		"the present":     {`"1"`, 200, ""},
		"one of several":  {`"7", W/"1", "1"`, 200, ""},
		"an old one":      {`"0"`, 412, "precondition_failed"},
		"several old":     {`"0","7"`, 412, "precondition_failed"},
		"a weak one":      {`W/"1"`, 412, "precondition_failed"},
		"without quotes":  {`1`, 422, "invalid"},
		"nothing":         {`""`, 422, "invalid"},
		"an open quote":   {`"1`, 422, "invalid"},
		"only separators": {`,`, 422, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(New(partsOf(newFake(t)), options()), "PUT", policyPath, `{"idle":{"after_seconds":90}}`, "If-Match", tt.ifMatch)
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if tt.code == "" {
				return
			}
			p := parse(t, w)
			checkProblem(t, policyPath, w.Header().Get("X-Request-Id"), w.Header().Get("Content-Type"), p)
			if p["code"] != tt.code {
				t.Errorf("code %v", p["code"])
			}
		})
	}
}

func TestVMsTakeAPolicy(t *testing.T) {
	f := newFake(t)
	h := New(partsOf(f), options())
	if w := ask(h, "POST", base+"/vms", `{"name":"x","autoscale":{"rules":{"all":{"mode":"recommend"}}}}`); w.Code != 201 || *f.Got.Create.Autoscale.Rules["all"].Mode != "recommend" {
		t.Errorf("create: status %d, %+v", w.Code, f.Got.Create)
	}
	if w := ask(h, "POST", base+"/vms", `{"name":"x"}`); w.Code != 201 || f.Got.Create.Autoscale.Rules != nil {
		t.Errorf("create without: status %d, %+v", w.Code, f.Got.Create)
	}
	if w := ask(h, "PATCH", base+"/vms/web", `{"autoscale":{}}`); w.Code != 200 || f.Got.Change.Autoscale == nil || f.Got.Change.Autoscale.Rules != nil {
		t.Errorf("change: status %d, %+v", w.Code, f.Got.Change)
	}
	if w := ask(h, "PATCH", base+"/vms/web", `{"pids":64}`); w.Code != 200 || f.Got.Change.Autoscale != nil {
		t.Errorf("change of something else: status %d, %+v", w.Code, f.Got.Change)
	}
}

func TestPolicyOfAVMIsPointedTo(t *testing.T) {
	f := newFake(t)
	f.Err = &fault.Error{Kind: fault.ErrInvalid, Code: "invalid_policy", Detail: "crossed",
		Fields: []fault.Field{{Pointer: "/rules/all/down", Detail: "must be below up"}}}
	for _, r := range [][2]string{{"POST", base + "/vms"}, {"PATCH", base + "/vms/web"}} {
		if p := parse(t, ask(New(partsOf(f), options()), r[0], r[1], `{}`)); !hasPointer(p, "/autoscale/rules/all/down") {
			t.Errorf("%v: %v", r, p)
		}
	}
	if p := parse(t, ask(New(partsOf(f), options()), "PUT", policyPath, `{}`)); !hasPointer(p, "/rules/all/down") {
		t.Errorf("%v", p)
	}
}

func TestStatusOfOneVM(t *testing.T) {
	h := New(partsOf(newFake(t)), options())
	for target, want := range map[string]string{"": "[db web]", "?vm=web": "[web]", "?vm=v0": "[db]"} {
		var s agent.ScalingStatus
		if err := json.Unmarshal(ask(h, "GET", base+"/autoscale/status"+target, "").Body.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, v := range s.VMs {
			names = append(names, v.VMName)
		}
		if fmt.Sprint(names) != want || s.Mode != "auto" {
			t.Errorf("%s: %v, want %s", target, names, want)
		}
	}
}

func TestDecisionsInPages(t *testing.T) {
	f := newFake(t)
	decides(f, 2500, "v0", "v1", "v8")
	h := New(partsOf(f), options())
	for name, tt := range map[string]struct {
		query       string
		total       int
		first, last uint64
	}{
		"all":                 {"", 2500, 1, 2500},
		"of a VM":             {"&vm=web", 834, 1, 2500},
		"by id":               {"&vm=v0", 833, 3, 2499},
		"of one that is gone": {"&vm=gone", 833, 2, 2498},
	} {
		t.Run(name, func(t *testing.T) {
			var seqs []uint64
			for since := uint64(0); ; {
				var page feedPage[agent.Decision]
				w := ask(h, "GET", fmt.Sprintf("%s/autoscale/events?limit=100&since=%d%s", base, since, tt.query), "")
				if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 || page.Items == nil {
					t.Fatalf("status %d, %v: %.200s", w.Code, err, w.Body)
				}
				for _, d := range page.Items {
					seqs = append(seqs, d.Seq)
				}
				since = page.LastSeq
				if len(page.Items) < 100 {
					break
				}
			}
			if len(seqs) != tt.total || seqs[0] != tt.first || seqs[len(seqs)-1] != tt.last {
				t.Errorf("%d from %d to %d, want %d from %d to %d", len(seqs), seqs[0], seqs[len(seqs)-1], tt.total, tt.first, tt.last)
			}
		})
	}
	var page feedPage[agent.Decision]
	if err := json.Unmarshal(ask(h, "GET", base+"/autoscale/events?vm=gone&since=2499", "").Body.Bytes(), &page); err != nil || len(page.Items) != 0 || page.LastSeq != 2500 {
		t.Errorf("what was passed over is looked at again: %+v, %v", page, err)
	}
}

func TestDecisionsAreFollowed(t *testing.T) {
	f := newFake(t)
	decides(f, 5, "v0", "v1")
	resp := get(t, New(partsOf(f), options()), base+"/autoscale/events?vm=web&since=1", "Accept", "text/event-stream")
	lines := bufio.NewReader(resp.Body)
	ids := readEvents(t, lines, 2)
	decides(f, 3, "v0", "v1")
	ids = append(ids, readEvents(t, lines, 1)...)
	if fmt.Sprint(ids) != "[3 5 7]" {
		t.Errorf("ids %v", ids)
	}
	data, err := lines.ReadString('}')
	if err != nil || !strings.HasPrefix(data, "event: decision\ndata: {\"seq\":7,") {
		t.Errorf("%q, %v", data, err)
	}
}
