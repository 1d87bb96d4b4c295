package api

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/api/apifuzz"
	"cloudflash/api/apitest"
)

// TestAnswersAreAsDocumented asks every route what the document allows and what it hardly does not: no answer is a
// failure, and every one is as the document says. CLOUDFLASH_FUZZ_REQUESTS asks more often.
func TestAnswersAreAsDocumented(t *testing.T) {
	requests := apifuzz.Requests(5000)
	f := newFake(t)
	complete(f)
	h := New(partsOf(f), options())
	document := ask(h, "GET", "/openapi.json", "")
	d, err := apifuzz.Read(document.Body.Bytes(), func(method, path string) bool {
		return method == "PUT" || strings.HasSuffix(path, "/session") // the fake takes any policy, and knows nobody
	})
	if err != nil {
		t.Fatal(err)
	}

	r := rand.New(rand.NewPCG(1, 2))
	bad := map[string]bool{}
	began := time.Now()
	for range requests {
		q := d.Request(r, []string{"web", "db", "v0", "old", "run", "op1", "host", "nobody"})
		req := httptest.NewRequest(q.Method, "/", strings.NewReader(string(q.Body)))
		target, err := req.URL.Parse(q.Target)
		if err != nil {
			t.Fatal(err)
		}
		req.URL = target
		if q.Body == nil {
			req.Body, req.ContentLength = http.NoBody, 0
		} else {
			req.Header.Set("Content-Type", "application/json")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // some wait
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req.WithContext(ctx))
		waited := ctx.Err() != nil
		cancel()
		if waited {
			continue
		}
		if err := d.Check(q, w.Code, w.Header().Get("Content-Type"), w.Body.Bytes()); err != nil {
			what, _, _ := strings.Cut(q.Target, "?")
			if key := q.Method + what + err.Error(); !bad[key] && len(bad) < 40 {
				bad[key] = true
				t.Errorf("%.500s:\n%v", q, err)
			}
		}
	}
	t.Logf("%d requests in %v", requests, time.Since(began).Round(time.Millisecond))
}

// complete gives what the fake has what a real agent would never leave out.
func complete(f *apitest.Agent) {
	f.AutoscaleIs.Mode = "off"
	host := f.Host()
	host.Usage.Collectors = map[string]agent.Collector{}
	f.HostIs = func() agent.Host { return host }
	for i := range f.Has.VMs {
		v := &f.Has.VMs[i]
		v.Network.Mode, v.Autoscale.Mode, v.Labels = agent.NetworkNAT, "off", map[string]string{}
	}
	for i := range f.Has.Cloudlets {
		f.Has.Cloudlets[i].Env = map[string]string{}
	}
}
