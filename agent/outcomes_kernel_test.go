package agent

import (
	"testing"

	"cloudflash/agent/cloudlet"
	"cloudflash/agent/outcomes"
)

// TestSystemOutcomesAreCounted ends cloudlets in every way that a test can bring
// about, each once.
func TestSystemOutcomesAreCounted(t *testing.T) {
	l := newLive(t)
	v := l.create("o", Spec{CPUs: 1, MemoryBytes: 64 * mib})
	run := func(req cloudlet.Submit) Cloudlet {
		req.VM, req.SLA = v.ID, SLAHigh
		return l.submit(req)
	}
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	slow := []Cloudlet{run(cloudlet.Submit{Argv: sh("sleep 300"), DeadlineSeconds: 300}),
		run(cloudlet.Submit{Argv: sh("sleep 1.5"), DeadlineSeconds: 1, OnDeadline: OnDeadlineContinue})}
	l.state(slow[0].ID, CloudletRunning)
	l.ended(run(cloudlet.Submit{Argv: sh("exit 0"), DeadlineSeconds: 300}).ID)
	l.ended(run(cloudlet.Submit{Argv: sh("exit 3")}).ID)
	l.ended(run(cloudlet.Submit{Argv: sh("kill -SEGV $$")}).ID)
	l.ended(run(cloudlet.Submit{Argv: []string{"burn", "--cpus", "0", "--memory", "128MiB", "--seconds", "60"}}).ID)
	l.ended(run(cloudlet.Submit{Argv: []string{"no-such-command"}}).ID)
	l.overdue(slow[0].ID)
	for _, c := range slow {
		l.ended(c.ID)
	}

	c := run(cloudlet.Submit{Argv: sh("sleep 300"), Request: Request{CPUs: 1}})
	l.state(c.ID, CloudletRunning)
	late := run(cloudlet.Submit{Argv: sh("true"), DeadlineSeconds: 1, Request: Request{CPUs: 1}}) // there is no room for it
	l.ended(late.ID)
	queued := run(cloudlet.Submit{Argv: sh("true"), Request: Request{CPUs: 1}})
	for _, id := range []string{queued.ID, c.ID} {
		if _, err := l.CancelCloudlet(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		l.ended(id)
	}
	last := run(cloudlet.Submit{Argv: sh("sleep 300")})
	l.state(last.ID, CloudletRunning)
	l.delete(v.ID)

	// It is counted right after the operation is seen to have ended.
	l.until(func() bool { return l.Snapshot().Outcomes.Events["vm.deleted"] == 1 }, "the deletion is counted")
	o := l.Snapshot().Outcomes
	for _, e := range outcomes.Endings {
		want := int64(1)
		if e.State == CloudletLost {
			want = 0
		}
		if o.Ended[e] != want {
			t.Errorf("%s, %s is counted %d times, want %d", e.State, e.Reason, o.Ended[e], want)
		}
	}
	if got, want := o.Deadlines[SLAHigh], (outcomes.Deadlines{Met: 1, Missed: 3}); got != want {
		t.Errorf("deadlines %+v, want %+v", got, want)
	}
	started := int64(0)
	for _, n := range o.Waiting[SLAHigh].Buckets {
		started += n
	}
	if started != 8 { // all but the one without a command and two of the queue
		t.Errorf("%d have waited, want 8", started)
	}
	if o.Events["cloudlet.finished"] != 10 {
		t.Errorf("events %v", o.Events)
	}
}
