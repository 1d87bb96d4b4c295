package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"cloudflash/agent"
	"github.com/google/go-cmp/cmp"
)

func TestScalingIsShown(t *testing.T) {
	for args, want := range map[string]string{
		"autoscale status": `autoscale   auto, woken by the kernel
room        13.5 of 16 cores, 20 GiB of 28 GiB of memory, 80 GiB of 200 GiB of storage are free
idle VMs    are deleted after 1m and a notice of 30s; at least 1 stay

VM   MODE  CPUS    MEMORY         STATE        CHANGES  IDLE      LAST
db   auto  1.96/2  100 MiB/1 GiB  cpus at_max  2/60     -         cpus 0.5 → 2, 2h0m ago
web  off   0/1     -              off          0/60     for 3h0m  -
`,
		"autoscale status db": `vm          db
autoscale   auto
changes     2 of 60 in the last hour
idle        1 cloudlet runs

RESOURCE  MODE  STATE   USE      LIMIT  MIN      MAX    UP    DOWN  COOLDOWN  LAST
cpus      auto  at_max  1.96     2      0.5      2      80 %  20 %  -         0.5 → 2, 2h0m ago
memory    auto  steady  100 MiB  1 GiB  256 MiB  4 GiB  90 %  20 %  -         -
rbps      off   off     0 B/s    none   none     none   0 %   0 %   -         -
`,
		"autoscale status -o name":      "db\nweb\n",
		"autoscale status web -o name":  "cpus\n",
		"autoscale policy -o name":      "cpus\nmemory\n",
		"autoscale events -o name":      "1\n2\n",
		"autoscale status --no-headers": "db   auto  1.96/2  100 MiB/1 GiB  cpus at_max  2/60  -         cpus 0.5 → 2, 2h0m ago\nweb  off   0/1     -              off          0/60  for 3h0m  -\n",
		"autoscale policy": `policy of   the host
changes     at most 6 a minute and 60 an hour of a VM
idle VMs    are deleted after 1m and a notice of 30s

RESOURCE  MODE  UP    DOWN  COOLDOWN  WINDOW  TARGET  MARGIN  STEP  MIN     MAX     SET
cpus      auto  80 %  20 %  5m        1h      62.5 %  15 %    50 %  spec/4  spec*4  -
memory    auto  80 %  20 %  5m        1h      62.5 %  15 %    50 %  spec/4  spec*4  -
`,
		"autoscale events": `SEQ  TIME          VM  RESOURCE  ACTION  FROM                  TO                    RESULT    REASON
1    03:04:05.006  db  cpus      grow    0.5                   2                     applied   throttled in 90 % of periods
2    03:04:06.006  db  memory    grow    1 GiB (high 900 MiB)  1 GiB (high 960 MiB)  deferred  at its limit
`,
		"autoscale events db --since 1 -o wide --no-headers": "2  03:04:06.006  db  memory  grow  1 GiB (high 900 MiB)  1 GiB (high 960 MiB)  deferred  at its limit  the host is full  0 B  memory.events 0, limit 0\n",
		"autoscale events -o csv --since 1":                  "seq,time,vm,resource,action,from,to,result,reason,why,use,signal,kernel,effect\n2,03:04:06.006,db,memory,grow,1 GiB (high 900 MiB),1 GiB (high 960 MiB),deferred,at its limit,the host is full,0 B,\"memory.events 0, limit 0\",,\n",
	} {
		t.Run(args, func(t *testing.T) {
			got := withAll(t).run(strings.Fields(args)...)
			if diff := cmp.Diff(result{Out: want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPolicyIsSet(t *testing.T) {
	r := withAll(t)
	rows := func(args string) []string {
		t.Helper()
		got := r.run(strings.Fields("autoscale " + args + " --no-headers")...)
		if got.Code != 0 || got.Err != "" {
			t.Fatalf("%s: %+v", args, got)
		}
		return strings.Split(strings.TrimSpace(got.Out), "\n")
	}
	for i, c := range []struct{ args, want, own string }{
		{"set cooldown=2m mode=recommend", "cpus recommend 80 % 20 % 2m 1h 62.5 % 15 % 50 % spec/4 spec*4 host: mode cooldown", `{"rules":{"all":{"mode":"recommend","cooldown_seconds":120}}}`},
		{"set db cpus max=4 up=70%", "cpus recommend 70 % 20 % 2m 1h 62.5 % 15 % 50 % 0.5 4 host: mode cooldown; vm: up max", `{"rules":{"cpus":{"up":0.7,"max":4}}}`},
		{"set db memory max=2GiB cooldown=90s", "memory recommend 80 % 20 % 1m30s 1h 62.5 % 15 % 50 % 256 MiB 2 GiB host: mode; vm: cooldown max", `{"rules":{"cpus":{"up":0.7,"max":4},"memory_bytes":{"cooldown_seconds":90,"max":2147483648}}}`},
		{"set db memory_bytes cooldown= max=", "memory recommend 80 % 20 % 2m 1h 62.5 % 15 % 50 % 256 MiB 4 GiB host: mode cooldown", `{"rules":{"cpus":{"up":0.7,"max":4}}}`},
		{"set db all mode=off", "cpus off 70 % 20 % 2m 1h 62.5 % 15 % 50 % 0.5 4 host: cooldown; vm: mode up max", `{"rules":{"all":{"mode":"off"},"cpus":{"up":0.7,"max":4}}}`},
		{"set mode= cooldown=", "cpus auto 80 % 20 % 5m 1h 62.5 % 15 % 50 % spec/4 spec*4 -", `{}`},
		{"policy db -o wide", "cpus off (vm) 70 % (vm) 20 % (default) 5m (default) 1h (default) 62.5 % (default) 15 % (default) 50 % (default) 0.5 (spec) 4 (vm)", ""},
	} {
		if got := strings.Join(strings.Fields(rows(c.args)[0]), " "); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.args, got, c.want)
		}
		all := r.requests()
		if last := all[len(all)-1]; c.own != "" && (last.Body != c.own || !strings.HasPrefix(last.Line, "PUT /api/v1/autoscale/policy")) {
			t.Errorf("%d, %s: sent %+v, want %s", i, c.args, last, c.own)
		}
	}
}

func TestIdlePolicyIsSet(t *testing.T) {
	r := withAll(t)
	for _, c := range []struct{ args, want, own string }{
		{"after=5m min-vms=2", "idle VMs    are deleted after 5m and a notice of 30s (after: host)", `{"idle":{"after_seconds":300,"min_vms":2}}`},
		{"after=0 min-vms=", "idle VMs    are kept (after: host)", `{"idle":{"after_seconds":0}}`},
		{"after=", "idle VMs    are deleted after 1m and a notice of 30s", `{}`},
	} {
		got := r.run(strings.Fields("autoscale set idle " + c.args)...)
		want := "policy of   the host\nchanges     at most 6 a minute and 60 an hour of a VM\n" + c.want + "\n"
		if diff := cmp.Diff(result{Out: want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.args, diff)
		}
		all := r.requests()
		if last := all[len(all)-1]; last.Body != c.own {
			t.Errorf("%s: sent %s, want %s", c.args, last.Body, c.own)
		}
	}
}

func TestPolicyThatSomebodyElseSets(t *testing.T) {
	r := withAll(t)
	r.agent.Has.Scaling.Raced = 1
	if got := r.run("autoscale", "set", "db", "cpus", "up=0.7", "-o", "name"); got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	rules := r.agent.Has.Scaling.Own["v0"].Rules
	if *rules["riops"].Mode != "off" || *rules["cpus"].Up != 0.7 || len(r.requests()) != 4 {
		t.Errorf("the other's change is lost: %+v after %d requests", rules, len(r.requests()))
	}
	r.agent.Has.Scaling.Raced = 2
	want := result{Err: "error: the policy is at version 5, not 4\n", Code: ExitConflict}
	if diff := cmp.Diff(want, r.run("autoscale", "set", "db", "cpus", "up=0.6")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestModeOfAVM(t *testing.T) {
	r := withAll(t)
	r.run("autoscale", "set", "db", "cpus", "mode=recommend", "max=4")
	if got := r.run("vm", "set", "db", "--cpus", "3", "--autoscale", "off", "-o", "name"); got != (result{Out: "db\n"}) {
		t.Fatalf("%+v", got)
	}
	all := r.requests()
	want := []request{{"PATCH /api/v1/vms/db", `{"cpus":3}`}, {"GET /api/v1/autoscale/policy?vm=db", ""},
		{"PUT /api/v1/autoscale/policy?vm=db", `{"rules":{"all":{"mode":"off"},"cpus":{"max":4}}}`}, {"GET /api/v1/vms/db", ""}}
	if diff := cmp.Diff(want, all[len(all)-4:]); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	r.run("vm", "create", "api", "--autoscale", "recommend")
	all = r.requests()
	if last := all[len(all)-1]; last.Body != `{"autoscale":{"rules":{"all":{"mode":"recommend"}}},"name":"api"}` {
		t.Errorf("%+v", last)
	}
}

func TestVMShowTellsOfScaling(t *testing.T) {
	r := withAll(t)
	r.agent.Has.VMs[0].Autoscale.Mode, r.agent.Has.VMs[1].Autoscale.Mode = "auto", "off"
	for vm, want := range map[string]string{"db": "auto, cpus at_max; cpus 0.5 → 2, 2h0m ago: throttled in 90 % of periods", "web": "off"} {
		if got := r.run("vm", "show", vm).Out; !strings.Contains(got, "\nautoscale   "+want+"\n") {
			t.Errorf("%s: %s", vm, got)
		}
	}
	r.agent.Has.Scaling.Status = nil
	if got := r.run("vm", "show", "db").Out; !strings.Contains(got, "\nautoscale   auto\n") {
		t.Errorf("without a status: %s", got)
	}
	if got := r.run("autoscale", "status", "db"); got.Code != ExitFailure || got.Err != "error: nothing is known of VM db yet\n" {
		t.Errorf("without a status: %+v", got)
	}
}

func TestDecisionsFollow(t *testing.T) {
	r := withAll(t)
	lines := r.start(t.Context(), nil, "autoscale", "events", "db", "-f")
	lines.out.await(t, "the host is full")
	r.agent.Change(func() {
		d := r.agent.Has.Scaling.Decisions[0]
		d.Seq, d.From, d.To = 3, 2, 1
		r.agent.Has.Scaling.Decisions = append(r.agent.Has.Scaling.Decisions, d)
	})
	lines.out.await(t, "2 → 1")
	r.cut()
	want := "03:04:05.006  db  cpus 0.5 → 2, applied: throttled in 90 % of periods\n" +
		"03:04:06.006  db  memory 1 GiB (high 900 MiB) → 1 GiB (high 960 MiB), deferred: at its limit (the host is full)\n" +
		"03:04:05.006  db  cpus 2 → 1, applied: throttled in 90 % of periods\n"
	if got := lines.wait(); got.Out != want || got.Code == 0 {
		t.Errorf("%+v, want %s", got, want)
	}
}

func TestAmountsAreReadAndWritten(t *testing.T) {
	for _, c := range [][3]string{{"cpus", "500m", "0.5"}, {"memory_bytes", "256MiB", "256 MiB"}, {"storage_bytes", "10GiB", "10 GiB"}, {"bandwidth_bps", "100Mbit", "100 Mbit/s"},
		{"rbps", "5MiB/s", "5 MiB/s"}, {"wbps", "4096", "4 KiB/s"}, {"riops", "500", "500 op/s"}, {"wiops", "0", "0 op/s"}} {
		v, err := readAmount(c[0], c[1])
		if got := amount(c[0], v); err != nil || got != c[2] {
			t.Errorf("%s of %s is %s, %v; want %s", c[1], c[0], got, err, c[2])
		}
	}
	for text, want := range map[float64]string{0: "0s", 0.5: "500ms", 30: "30s", 60: "1m", 90: "1m30s", 3600: "1h", 5400: "1h30m", 3601: "1h0m1s", 86400: "24h"} {
		if got := seconds(text); got != want {
			t.Errorf("%v s is %s, want %s", text, got, want)
		}
	}
}

func TestPolicyThatTheAgentRefuses(t *testing.T) {
	want := result{Err: "error: up of cpus must be at most 1\nhint: 0.8 is the default\n", Code: ExitUsage}
	if diff := cmp.Diff(want, withAll(t).run("autoscale", "set", "db", "cpus", "up=70")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := withAll(t).agent.Has.Scaling.Own; len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// FuzzSettings gives set any arguments: what it takes can be sent.
func FuzzSettings(f *testing.F) {
	for _, seed := range []string{"db cpus max=4 up=70%", "idle after=5m min-vms=", "up=NaN", "up=1e999", "= = =", "a b c=", "memory min=1EiB", "cooldown=9999999h", "bandwidth max=-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		s, err := parseSet(strings.Fields(line))
		if err != nil {
			return
		}
		var own agent.PolicyLayer
		if err := s.apply(&own); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := json.Marshal(own); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for i := range s.fields {
			s.fields[i][1] = ""
		}
		if err := s.apply(&own); err != nil || len(own.Rules) > 0 || own.Idle != nil {
			t.Fatalf("%q leaves %+v, %v", line, own, err)
		}
	})
}
