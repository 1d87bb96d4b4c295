package cli

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/fault"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

func TestVMListInEveryFormat(t *testing.T) {
	r := withVMs(t)
	for format, want := range map[string]string{
		"table": `
NAME  STATE    CPU       MEMORY         PIDS   CLOUDLETS  IDLE  AGE
db    running  0.50/2    100 MiB/1 GiB  3/256  1          -     2h10m
web   failed   0.00/max  0 B/max        0/max  0          30s   3d
`,
		"wide": `
NAME  STATE    CPU       MEMORY         PIDS   CLOUDLETS  IDLE  AGE    ID  IMAGE  IO                            STORAGE  NETWORK  ADDRESS    RX   TX   GPUS  INIT  REASON
db    running  0.50/2    100 MiB/1 GiB  3/256  1          -     2h10m  v0  host   read 5 MiB/s, write 100 op/s  0 B/max  nat      10.88.0.2  0 B  0 B  0     42
web   failed   0.00/max  0 B/max        0/max  0          30s   3d     v1  host   none                          0 B/max                      0 B  0 B  0     0     init ended
`,
		"csv": `
name,state,cpu,memory,pids,cloudlets,idle,age,id,image,io,storage,network,address,rx,tx,gpus,init,reason
db,running,0.50/2,100 MiB/1 GiB,3/256,1,-,2h10m,v0,host,"read 5 MiB/s, write 100 op/s",0 B/max,nat,10.88.0.2,0 B,0 B,0,42,
web,failed,0.00/max,0 B/max,0/max,0,30s,3d,v1,host,none,0 B/max,,,0 B,0 B,0,0,init ended
`,
		"name": "\ndb\nweb\n",
	} {
		t.Run(format, func(t *testing.T) {
			want = strings.TrimPrefix(want, "\n")
			if diff := cmp.Diff(result{Out: want}, r.run("vm", "list", "-o", format)); diff != "" {
				t.Errorf("vm list -o %s (-want +got):\n%s", format, diff)
			}
			if format != "name" {
				_, want, _ = strings.Cut(want, "\n")
			}
			got := r.run("vm", "list", "--no-headers", "-o", format)
			if diff := cmp.Diff(strings.Fields(want), strings.Fields(got.Out)); diff != "" {
				t.Errorf("vm list --no-headers -o %s (-want +got):\n%s", format, diff)
			}
		})
	}
}

// lists are all verbs that print any number of things, with the API's list of them.
var lists = map[string]string{"vm list": "/vms", "cloudlet list": "/cloudlets", "events": "/events", "autoscale events": "/autoscale/events", "host check": "/host/checks", "token list": "/tokens"}

func TestListsAreTheAPIsLists(t *testing.T) {
	r := withAll(t)
	for verb, path := range lists {
		t.Run(verb, func(t *testing.T) {
			var page struct{ Items []any }
			if err := json.Unmarshal([]byte(r.run("api", "GET", "/api/v1"+path).Out), &page); err != nil || len(page.Items) == 0 {
				t.Fatalf("%d items, %v", len(page.Items), err)
			}
			for format, decode := range decoders() {
				got := r.run(append(strings.Fields(verb), "-o", format)...)
				var all any
				if err := decode(got.Out, &all); err != nil || got.Code != 0 {
					t.Errorf("-o %s: exit code %d, %v: %s", format, got.Code, err, got.Out)
				} else if diff := cmp.Diff(any(page.Items), all); diff != "" {
					t.Errorf("-o %s (-API +printed):\n%s", format, diff)
				}
			}
		})
	}
}

func TestEmptyListsAreArrays(t *testing.T) {
	r := newRig(t)
	for verb := range lists {
		for format, want := range map[string]string{"json": "[]\n", "jsonl": "", "yaml": "[]\n", "name": ""} {
			if got := r.run(append(strings.Fields(verb), "-o", format)...); got != (result{Out: want}) {
				t.Errorf("%s -o %s: %+v, want %q", verb, format, got, want)
			}
		}
		for _, format := range []string{"table", "wide", "csv"} {
			if got := r.run(append(strings.Fields(verb), "-o", format)...); strings.Count(got.Out, "\n") != 1 || got.Code != 0 {
				t.Errorf("%s -o %s: %+v, want the first line only", verb, format, got)
			}
			if got := r.run(append(strings.Fields(verb), "--no-headers", "-o", format)...); got != (result{}) {
				t.Errorf("%s --no-headers -o %s: %+v, want nothing", verb, format, got)
			}
		}
	}
}

func TestOneThingIsAnObject(t *testing.T) {
	for verb, path := range map[string]string{"vm show db": "/vms/db", "cloudlet show etl": "/cloudlets/etl", "host info": "/host", "autoscale status": "/autoscale/status", "autoscale status db": "/autoscale/status?vm=db", "autoscale policy": "/autoscale/policy", "autoscale policy db": "/autoscale/policy?vm=db",
		"vm create api": "", "vm set db --cpus 2": "/vms/db", "cloudlet submit --name job ls": "", "token create ci": "", "login": "", "version": "", "top --once": ""} {
		t.Run(verb, func(t *testing.T) {
			r := withAll(t)
			for format, decode := range decoders() {
				got := r.run(append([]string{"-o", format}, strings.Fields(verb)...)...)
				var printed any
				err := decode(got.Out, &printed)
				if one, ok := printed.([]any); ok && format == "jsonl" && len(one) == 1 {
					printed = one[0]
				}
				if _, ok := printed.(map[string]any); err != nil || !ok || got.Code != 0 {
					t.Fatalf("-o %s: exit code %d, %v, no object: %s%s", format, got.Code, err, got.Out, got.Err)
				}
				if path == "" {
					continue
				}
				var want any
				if err := json.Unmarshal([]byte(r.run("api", "GET", "/api/v1"+path).Out), &want); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, printed); diff != "" {
					t.Errorf("-o %s (-API +printed):\n%s", format, diff)
				}
			}
		})
	}
}

// decoders read what is printed for programs; all give the same for the same.
func decoders() map[string]func(string, *any) error {
	return map[string]func(string, *any) error{
		"json": func(s string, v *any) error { return json.Unmarshal([]byte(s), v) },
		"yaml": func(s string, v *any) error {
			var tree any
			if err := yaml.Unmarshal([]byte(s), &tree); err != nil {
				return err
			}
			b, err := json.Marshal(tree)
			if err != nil {
				return err
			}
			return json.Unmarshal(b, v)
		},
		"jsonl": func(s string, v *any) error {
			all := []any{}
			for line := range strings.Lines(s) {
				var one any
				if err := json.Unmarshal([]byte(line), &one); err != nil {
					return err
				}
				all = append(all, one)
			}
			*v = all
			return nil
		},
	}
}

// evil is what a cloudlet may have put in the way of a terminal: escape
// sequences of seven and eight bits, a carriage return, a new line, a bell, a
// backspace, text that runs right to left, and bytes that are no text.
const evil = "a\x1b[2J\x1b]0;pwned\a\r\nfake  row\b\u009b31m\u202e\x7f\xff\tz"

func TestNamesCannotPlayWithTheTerminal(t *testing.T) {
	r := withAll(t)
	for i := range r.agent.Has.VMs {
		r.agent.Has.VMs[i].Name, r.agent.Has.VMs[i].Reason, r.agent.Has.VMs[i].Image = evil, evil, evil
	}
	for i := range r.agent.Has.Cloudlets {
		c := &r.agent.Has.Cloudlets[i]
		c.Name, c.VMName, c.Reason, c.Argv, c.Env, c.WorkDir = evil, evil, evil, []string{evil}, map[string]string{evil: evil}, evil
		c.Signal, c.ExitCode = evil, nil
	}
	for i := range r.agent.Has.Events {
		r.agent.Has.Events[i].Message, r.agent.Has.Events[i].Kind, r.agent.Has.Events[i].Level = evil, evil, evil
	}
	for i := range r.agent.Has.Scaling.Decisions {
		d := &r.agent.Has.Scaling.Decisions[i]
		d.VMName, d.Reason, d.Why, d.Signal, d.Effect = evil, evil, evil, evil, &agent.Effect{Text: evil}
	}
	for i := range r.agent.Has.Scaling.Status {
		r.agent.Has.Scaling.Status[i].VMName, r.agent.Has.Scaling.Status[i].Activity = evil, evil
	}
	r.agent.Has.Tokens[0].Name, r.agent.Has.Tokens[0].Role = evil, evil
	r.agent.Has.Checks[0].Detail, r.agent.Has.Checks[0].Fix, r.agent.Has.Checks[0].OK = evil, evil, false
	r.agent.Has.Operations[0] = agent.Operation{ID: "o0", Kind: evil, Target: evil, State: agent.OperationFailed, Error: evil}
	for _, verb := range []string{"vm list", "vm show v0", "vm set v0 --cpus 1", "vm freeze v0", "vm delete v0", "vm delete --no-wait v0", "cloudlet list", "cloudlet show c0",
		"cloudlet cancel c2", "cloudlet wait c0 c1", "events", "autoscale events", "autoscale status", "autoscale status v0", "autoscale policy v0", "token list", "host check", "top --once", "vm wait v0 --for frozen --timeout 10ms"} {
		for _, format := range formats {
			got := r.run(append(strings.Fields(verb), "-o", format)...)
			if i := strings.IndexFunc(got.Out+got.Err, func(r rune) bool { return r != '\n' && clean(string(r)) != string(r) }); i >= 0 {
				t.Errorf("%s -o %s prints %q", verb, format, (got.Out + got.Err)[i:])
			}
			if got.Out+got.Err == "" {
				t.Errorf("%s -o %s prints nothing", verb, format)
			}
		}
	}
	if got := r.run("vm", "list"); strings.Count(got.Out, "\n") != 3 {
		t.Errorf("two VMs make %q", got.Out)
	}
	rows, err := csv.NewReader(strings.NewReader(r.run("vm", "list", "-o", "csv").Out)).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Errorf("two VMs make %q, %v", rows, err)
	}
}

func TestErrorsCannotPlayWithTheTerminal(t *testing.T) {
	r := newRig(t)
	r.agent.Err = &fault.Error{Kind: fault.ErrInvalid, Code: "x", Detail: evil, Hint: evil,
		Fields: []fault.Field{{Pointer: evil, Detail: evil}, {Pointer: evil, Detail: evil}}}
	got := r.run("vm", "show", "db")
	if i := strings.IndexFunc(got.Err, func(r rune) bool { return r != '\n' && clean(string(r)) != string(r) }); i >= 0 || strings.Count(got.Err, "\n") != 4 || got.Code != ExitUsage {
		t.Errorf("printed %q, exit code %d", got.Err, got.Code)
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(d time.Duration) *time.Time { return ptr(time.Now().Add(d)) }
		for want, c := range map[string]agent.Cloudlet{
			"-":               {},
			"in 10.0s":        {DeadlineAt: at(10 * time.Second)},
			"in 0.0s":         {DeadlineAt: at(0)},
			"overdue by 3.0s": {DeadlineAt: at(-3 * time.Second)},
			"missed by 2.5s":  {DeadlineAt: at(0), OverrunSeconds: 2.5, FinishedAt: at(time.Second)},
			"met, 4.0s left":  {State: agent.CloudletSucceeded, DeadlineAt: at(0), FinishedAt: at(-4 * time.Second)},
		} {
			if got := deadlineText(c); got != want {
				t.Errorf("deadline is %q, want %q", got, want)
			}
		}
	})
}

func TestElapsedAndAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(d time.Duration) *time.Time { return ptr(time.Now().Add(d)) }
		for want, c := range map[string]agent.Cloudlet{"-": {}, "5.0s": {StartedAt: at(-5 * time.Second)}, "2.5s": {StartedAt: at(-5 * time.Second), FinishedAt: at(-2500 * time.Millisecond)}} {
			if got := elapsed(c); got != want {
				t.Errorf("elapsed is %q, want %q", got, want)
			}
		}
		for want, d := range map[string]time.Duration{"0s": -time.Hour, "59s": 59 * time.Second, "1m0s": time.Minute, "59m59s": time.Hour - 1, "1h0m": time.Hour, "47h59m": 48*time.Hour - 1, "2d": 48 * time.Hour, "400d": 400*24*time.Hour + 1} {
			if got := age(time.Now().Add(-d)); got != want {
				t.Errorf("age of %s is %q, want %q", d, got, want)
			}
		}
	})
}

func TestCoresAreNeverRoundedAway(t *testing.T) {
	for want, n := range map[string]float64{"0.5": 0.5, "1600": 1600, "100.5": 100.5, "0.001": 0.001, "1234567": 1234567, "0.333": 1.0 / 3, "2": 2} {
		if got := cpus(&n); got != want {
			t.Errorf("cpus(%v) = %q, want %q", n, got, want)
		}
	}
}

func TestProgramsGetEveryRune(t *testing.T) {
	r := withAll(t)
	text := "\U000e0041 \u202e \x1b \x7f \u0085 \n \t \"quoted\" 'single' : - # {x} [y] & * ! | > % @ ` \U0001f600 é"
	c := &r.agent.Has.Cloudlets[0]
	c.Name, c.Reason, c.Argv, c.Env = "e", text, []string{text, " lead", "trail ", "", "null", "1e3", "0x1f", "on", "No", "y", "true", "12e5", ".inf", "+1", "2026-01-02", "~", "a: b", "yes", "-"}, map[string]string{"A\x1bB": text}
	var want any
	if err := json.Unmarshal([]byte(r.run("api", "GET", "/api/v1/cloudlets/e").Out), &want); err != nil {
		t.Fatal(err)
	}
	for format, decode := range decoders() {
		var got any
		printed := r.run("cloudlet", "show", "e", "-o", format).Out
		if err := decode(printed, &got); err != nil {
			t.Errorf("-o %s: %v: %s", format, err, printed)
			continue
		}
		if format == "jsonl" {
			got = got.([]any)[0]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-o %s (-API +printed):\n%s", format, diff)
		}
	}
}

func FuzzPrintedForPrograms(f *testing.F) {
	for _, s := range []string{evil, "", "a\nb", " x", "0x1f", "|-", "? 0", "a: b", "a #b", "No", "TRUE", "Null", "1e3", "\U000e0041", "- a", "\ufeff", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		in := map[string]any{"k": strings.ToValidUTF8(s, "?"), "l": []any{strings.ToValidUTF8(s, "?")}, strings.ToValidUTF8(s, "?"): "v"}
		for format, encode := range map[string]func(io.Writer, any) error{"json": encodeJSON, "yaml": encodeYAML} {
			var b strings.Builder
			if err := encode(&b, in); err != nil {
				t.Fatalf("%s of %q: %v", format, s, err)
			}
			if i := strings.IndexFunc(b.String(), func(r rune) bool { return r != '\n' && acts(r) }); i >= 0 {
				t.Errorf("%s of %q has %q", format, s, b.String()[i:])
			}
			var out any
			if err := decoders()[format](b.String(), &out); err != nil {
				t.Fatalf("%s of %q: %v: %s", format, s, err, b.String())
			}
			if diff := cmp.Diff(any(in), out); diff != "" {
				t.Errorf("%s of %q (-want +got):\n%s", format, s, diff)
			}
		}
	})
}
