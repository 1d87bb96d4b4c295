package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cloudflash/api/apifuzz"
	"cloudflash/cmd/cloudflash/systemtest"
)

// TestSystemAPIIsAsDocumented asks a real agent what its document allows and what it hardly does not: no answer is a
// failure, every one is as the document says, and nothing is left. CLOUDFLASH_FUZZ_REQUESTS asks more often. It takes
// 20 to 60 s: VMs are made, and some requests wait.
func TestSystemAPIIsAsDocumented(t *testing.T) {
	requests := apifuzz.Requests(300)
	mounts := systemtest.Mounts(t)
	s := systemtest.Start(t)
	_, _, document, err := s.Ask(t.Context(), "GET", "/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := apifuzz.Read(document, nil)
	if err != nil {
		t.Fatal(err)
	}

	r := rand.New(rand.NewPCG(3, uint64(requests)))
	names := []string{"web", "web", "job", "host", "nobody"}
	var asking sync.WaitGroup
	room := make(chan struct{}, 4)
	var mu sync.Mutex
	answered, bad := map[int]int{}, 0
	for i := range requests {
		if i%30 == 0 { // they may have been deleted
			s.Run("vm", "create", "web", "--memory", "64MiB", "--storage", "64MiB")
			s.Run("cloudlet", "submit", "--vm", "web", "--name", "job", "--", "sleep", "1000")
		}
		q := d.Request(r, names)
		room <- struct{}{}
		asking.Go(func() {
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			status, kind, answer, err := s.Ask(ctx, q.Method, q.Target, q.Body)
			mu.Lock()
			defer mu.Unlock()
			answered[status]++
			if ctx.Err() != nil { // it waits, or follows
				return
			}
			if err == nil {
				err = d.Check(q, status, kind, answer)
			}
			if err != nil && bad < 20 {
				bad++
				t.Errorf("%.500s:\n%v", q, err)
			}
		})
	}
	asking.Wait()
	t.Logf("%d requests by status: %v", requests, fmt.Sprint(answered))

	if status, _, answer, err := s.Ask(t.Context(), "GET", "/health", nil); err != nil || status != 200 {
		t.Errorf("afterwards: %d %s, %v", status, answer, err)
	}
	s.DeleteAll()
	s.NothingLeft(mounts)
}
