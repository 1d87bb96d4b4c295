package cli

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/agent/tokens"

	"github.com/google/go-cmp/cmp"
)

// refusal is an agent's no, with a field and a hint.
func refusal(kind error) error {
	return &fault.Error{Kind: kind, Code: "out_of_range",
		Detail: "memory_bytes must be at most 34359738368 (32 GiB), not 68719476736", Hint: "cloudflash host info",
		Fields: []fault.Field{{Pointer: "/memory_bytes", Detail: "must be at most 34359738368 (32 GiB), not 68719476736", Max: 32 << 30}}}
}

const refused = "error: memory_bytes must be at most 34359738368 (32 GiB), not 68719476736\nhint: cloudflash host info\n"

func TestRefusalsHaveExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		kind error
		code int
	}{
		"not found": {fault.ErrNotFound, ExitNotFound},
		"exists":    {fault.ErrExists, ExitConflict},
		"conflict":  {fault.ErrConflict, ExitConflict},
		"capacity":  {fault.ErrCapacity, ExitCapacity},
		"invalid":   {fault.ErrInvalid, ExitUsage},
		"auth":      {fault.ErrAuth, ExitAuth},
		"expired":   {fault.ErrExpired, ExitFailure},
		"stale":     {fault.ErrPrecondition, ExitConflict},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.agent.Err = refusal(c.kind)
			for _, verb := range []string{"vm create web --memory 64GiB", "vm show web", "vm set web --cpus 1", "vm delete web", "vm freeze web", "vm thaw web", "vm wait web",
				"cloudlet submit ls", "cloudlet run ls", "cloudlet show x", "cloudlet logs x", "cloudlet cancel x", "cloudlet wait x", "events", "events -f", "autoscale policy", "autoscale events", "autoscale events -f", "api GET /api/v1/vms/web"} {
				got := r.run(strings.Fields(verb)...)
				if diff := cmp.Diff(result{Err: refused, Code: c.code}, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", verb, diff)
				}
			}
		})
	}
}

func TestInternalErrorNamesTheRequest(t *testing.T) {
	r := newRig(t)
	r.agent.Err = os.ErrInvalid // no refusal: its text is for the agent's log
	got := r.run("vm", "show", "web")
	if got.Code != ExitFailure || !strings.HasPrefix(got.Err, "error: internal error; the agent's log has the cause\nrequest: ") || strings.Contains(got.Err, "invalid") {
		t.Errorf("exit code %d, %q", got.Code, got.Err)
	}
}

func TestEveryWrongFieldIsNamed(t *testing.T) {
	got := newRig(t).run("api", "POST", "/api/v1/vms", `{"cpu": 1, "memory": 2}`)
	if got.Code != ExitUsage || !strings.Contains(got.Err, "\n  cpu: is not a known field") || !strings.Contains(got.Err, "\n  memory: is not a known field") {
		t.Errorf("exit code %d, %s", got.Code, got.Err)
	}
}

func TestMissingThings(t *testing.T) {
	r := newRig(t)
	for verb, want := range map[string]string{
		"vm show nix":                 "error: vm \"nix\" not found\nhint: cloudflash vm list shows what there is\n",
		"vm delete nix":               "error: vm \"nix\" not found\nhint: cloudflash vm list shows what there is\n",
		"vm wait nix":                 "error: vm \"nix\" not found\nhint: cloudflash vm list shows what there is\n",
		"cloudlet logs nix":           "error: cloudlet \"nix\" not found\nhint: cloudflash cloudlet list shows what there is\n",
		"cloudlet wait nix":           "error: cloudlet \"nix\" not found\nhint: cloudflash cloudlet list shows what there is\n",
		"autoscale status nix":        "error: vm \"nix\" not found\nhint: cloudflash vm list shows what there is\n",
		"autoscale policy nix":        "error: vm \"nix\" not found\nhint: cloudflash vm list shows what there is\n",
		"autoscale events nix":        "error: vm \"nix\" not found\nhint: cloudflash vm list shows what there is\n",
		"autoscale set nix up=1":      "error: vm \"nix\" not found\nhint: cloudflash vm list shows what there is; as a resource, there are cpus, memory, storage, bandwidth, rbps, wbps, riops, wiops, all, idle\n",
		"autoscale set nix cpus up=1": "error: vm \"nix\" not found\nhint: cloudflash vm list shows what there is\n",
		"token revoke nix":            "error: token \"nix\" not found\nhint: cloudflash token list shows what there is\n",
		"api GET /api/v1/nix":         "error: there is nothing at /api/v1/nix\nhint: GET /openapi.json lists all routes\n",
	} {
		if diff := cmp.Diff(result{Err: want, Code: ExitNotFound}, r.run(strings.Fields(verb)...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", verb, diff)
		}
	}
}

func TestUsage(t *testing.T) {
	r := withAll(t)
	for args, want := range map[string]string{
		"nix":                                      `unknown command "nix"; cloudflash --help lists them`,
		"vm nix":                                   `unknown command "nix"; cloudflash vm --help lists them`,
		"cloudlet nix":                             `unknown command "nix"; cloudflash cloudlet --help lists them`,
		"host nix":                                 `unknown command "nix"; cloudflash host --help lists them`,
		"completion nix":                           `unknown command "nix"; cloudflash completion --help lists them`,
		"help nix":                                 `unknown command "nix"; cloudflash --help lists them`,
		"--nix":                                    `unknown flag: --nix; cloudflash --help lists the flags`,
		"vm list --nix":                            `unknown flag: --nix; cloudflash vm list --help lists the flags`,
		"vm list -x":                               `unknown shorthand flag: 'x' in -x; cloudflash vm list --help lists the flags`,
		"vm list extra":                            `cloudflash vm list takes no arguments; usage: cloudflash vm list [flags]`,
		"vm create":                                `cloudflash vm create takes a name; usage: cloudflash vm create NAME [flags]`,
		"vm create a b":                            `cloudflash vm create takes a name; usage: cloudflash vm create NAME [flags]`,
		"vm delete":                                `cloudflash vm delete needs a VM; usage: cloudflash vm delete VM... [flags]`,
		"vm set db":                                `nothing to set; cloudflash vm set --help lists what can be`,
		"vm create a --cpus -1":                    `--cpus: "-1" is not a number of cores such as 0.5, 2 or 500m`,
		"vm create a --cpus NaN":                   `--cpus: "NaN" is not a number of cores such as 0.5, 2 or 500m`,
		"vm create a --memory 1XB":                 `--memory: "1XB" is not an amount such as 512MiB, 8GB or 4096`,
		"vm create a --storage ∞":                  `--storage: "∞" is not an amount such as 512MiB, 8GB or 4096`,
		"vm create a --bandwidth 1MiB":             `--bandwidth: "1MiB" is not a bandwidth such as 100Mbit or 1Gbit`,
		"vm create a --io-wbps x":                  `--io-wbps: "x" is not an amount such as 512MiB, 8GB or 4096`,
		"vm create a --io-rbps x --io-wbps 1":      `--io-rbps: "x" is not an amount such as 512MiB, 8GB or 4096`,
		"vm create a --pids many":                  `invalid argument "many" for "--pids" flag: strconv.ParseInt: parsing "many": invalid syntax; cloudflash vm create --help lists the flags`,
		"vm create a --label =x":                   `--label takes KEY=VALUE, not "=x"`,
		"vm create a --memory":                     `flag needs an argument: --memory; cloudflash vm create --help lists the flags`,
		"vm list -o xml":                           `--output must be one of table, wide, json, jsonl, yaml, csv, name, not "xml"`,
		"vm wait db --for blue":                    `--for must be one of idle, gone, running, frozen, failed, not "blue"`,
		"vm wait nix --for blue":                   `--for must be one of idle, gone, running, frozen, failed, not "blue"`,
		"cloudlet submit --memory x ls":            `--memory: "x" is not an amount such as 512MiB, 8GB or 4096`,
		"cloudlet run --cpus x ls":                 `--cpus: "x" is not a number of cores such as 0.5, 2 or 500m`,
		"cloudlet run -e A ls":                     `--env takes KEY=VALUE, not "A"`,
		"cloudlet run --deadline soon ls":          `invalid argument "soon" for "--deadline" flag: time: invalid duration "soon"; cloudflash cloudlet run --help lists the flags`,
		"cloudlet wait":                            `cloudflash cloudlet wait needs a cloudlet; usage: cloudflash cloudlet wait CLOUDLET... [flags]`,
		"events -f -o json":                        `--follow never ends: its --output must be table, wide or jsonl, not json`,
		"events -f -o yaml":                        `--follow never ends: its --output must be table, wide or jsonl, not yaml`,
		"top --once -o csv":                        `top has no --output csv; json, jsonl and yaml are`,
		"api GET":                                  `usage: cloudflash api METHOD PATH [BODY] [flags]`,
		"api GET api/v1/vms":                       `PATH begins with /, such as /api/v1/vms`,
		"autoscale nix":                            `unknown command "nix"; cloudflash autoscale --help lists them`,
		"autoscale status a b":                     `cloudflash autoscale status takes at most one VM; usage: cloudflash autoscale status [VM] [flags]`,
		"autoscale set":                            `nothing to set: no word of it is FIELD=VALUE, such as max=4; cloudflash autoscale set --help lists the fields`,
		"autoscale set db cpus":                    `nothing to set: no word of it is FIELD=VALUE, such as max=4; cloudflash autoscale set --help lists the fields`,
		"autoscale set db disk up=1":               `"disk" is no resource; there are cpus, memory, storage, bandwidth, rbps, wbps, riops, wiops, all, idle`,
		"autoscale set a b cpus up=1":              `a VM and a resource may stand before the fields, not ["a" "b" "cpus"]`,
		"autoscale set up=1 db":                    `"db" is no FIELD=VALUE; a VM and a resource stand before the fields`,
		"autoscale set db cpus upp=1":              `"upp" is no field; there are mode, up, down, cooldown, window, target, margin, step, min, max`,
		"autoscale set db cpus up=most":            `up: "most" is not a share such as 0.7 or 70%`,
		"autoscale set db cpus up=NaN":             `up: "NaN" is not a share such as 0.7 or 70%`,
		"autoscale set db cooldown=5":              `cooldown: "5" is not a time such as 30s or 5m`,
		"autoscale set db max=4":                   `max: it is of one resource, such as cpus: name it in front`,
		"autoscale set db memory max=4XB":          `max: "4XB" is not an amount such as 512MiB, 8GB or 4096`,
		"autoscale set db riops max=1k":            `max: "1k" is not a number of operations per second`,
		"autoscale set idle up=1":                  `"up" is no field of idle; there are after, notice, min-vms`,
		"autoscale set idle min-vms=some":          `min-vms: "some" is not a number of VMs`,
		"autoscale events -f -o json":              `--follow never ends: its --output must be table, wide or jsonl, not json`,
		"vm create a --autoscale on":               `--autoscale must be off, recommend or auto, not "on"`,
		"vm set db --autoscale on":                 `--autoscale must be off, recommend or auto, not "on"`,
		"vm list --host localhost:5000":            `--host must be unix:///path or http(s)://host:port, not "localhost:5000"`,
		"events -f --host localhost:5000":          `--host must be unix:///path or http(s)://host:port, not "localhost:5000"`,
		"api GET / --host localhost:5000":          `--host must be unix:///path or http(s)://host:port, not "localhost:5000"`,
		"cloudlet submit --sla 0 ls":               "sla must be more than 0; leave it out for the default",
		"vm create a --cpus 0":                     "cpus must be more than 0; leave it out for the default",
		"cloudlet logs etl --stream both --tail x": `invalid argument "x" for "--tail" flag: strconv.ParseInt: parsing "x": invalid syntax; cloudflash cloudlet logs --help lists the flags`,
	} {
		if diff := cmp.Diff(result{Err: "error: " + want + "\n", Code: ExitUsage}, r.run(strings.Fields(args)...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
	}
	for _, args := range []string{"vm list --state blue", "cloudlet list --state blue", "cloudlet logs etl --stream blue", "login --role king", "token create a --role king"} {
		got := r.run(strings.Fields(args)...)
		flag := strings.TrimPrefix(strings.Fields(args)[len(strings.Fields(args))-2], "--")
		if got.Out != "" || !strings.HasPrefix(got.Err, "error: ") || strings.Count(got.Err, "\n") != 1 || !strings.Contains(got.Err, flag) {
			t.Errorf("%s: %+v", args, got)
		}
		if got.Code != ExitUsage {
			t.Errorf("%s: exit code %d", args, got.Code)
		}
	}
}

func TestTokensOverTCP(t *testing.T) {
	r := withVMs(t)
	r.agent.Has.Secrets = map[string]agent.Token{"root": {Role: tokens.RoleAdmin, Kind: "token"},
		"guest": {Role: tokens.RoleViewer, Kind: "token"}}
	hint := "hint: cloudflash login prints a link for a browser; cloudflash token create makes a token\n"
	for name, c := range map[string]struct {
		token, args string
		want        result
	}{
		"none":              {"", "vm list", result{Err: "error: log in first\n" + hint, Code: ExitAuth}},
		"wrong":             {"guess", "vm list", result{Err: "error: token is unknown, revoked or expired\nhint: cloudflash token create\n", Code: ExitAuth}},
		"viewer looks":      {"guest", "vm list -o name", result{Out: "db\nweb\n"}},
		"viewer sets":       {"guest", "autoscale set up=0.7", result{Err: "error: a viewer may only look\nhint: use a token of role admin\n", Code: ExitAuth}},
		"viewer deletes":    {"guest", "vm delete db", result{Err: "error: a viewer may only look\nhint: use a token of role admin\n", Code: ExitAuth}},
		"admin":             {"root", "vm freeze db -o name", result{Out: "db\n"}},
		"none, raw request": {"", "api GET /api/v1/vms", result{Err: "error: log in first\n" + hint, Code: ExitAuth}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, host := range []string{r.tcp, r.tcp + "/"} {
				if diff := cmp.Diff(c.want, r.over(host, c.token, strings.Fields(c.args)...)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestAgentUnreachable(t *testing.T) {
	dir, err := os.MkdirTemp("", "cf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = port.Close()
	r := newRig(t)
	for name, c := range map[string]struct{ host, why string }{
		"no socket":    {"unix://" + dir + "/nix", "dial unix " + dir + "/nix: connect: no such file or directory"},
		"stale socket": {"unix://" + stale, "dial unix " + stale + ": connect: connection refused"},
		"no listener":  {"http://" + port.Addr().String(), "dial tcp " + port.Addr().String() + ": connect: connection refused"},
	} {
		want := result{Err: "error: cannot reach the agent at " + c.host + ": " + c.why + "\nhint: is it running? sudo cloudflash serve\n", Code: ExitUnreachable}
		for _, verb := range []string{"vm list", "cloudlet run ls", "cloudlet logs x", "events -f", "api GET /", "vm wait x --timeout 1m", "host info", "top --once", "login"} {
			if diff := cmp.Diff(want, r.over(c.host, "", strings.Fields(verb)...)); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", name, verb, diff)
			}
		}
		want.Out = "client: dev\n"
		if diff := cmp.Diff(want, r.over(c.host, "", "version")); diff != "" {
			t.Errorf("%s: version (-want +got):\n%s", name, diff)
		}
	}
}

func TestAnswersThatAreNoneOfTheAPIs(t *testing.T) {
	answer := ""
	status := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	defer srv.Close()
	r := newRig(t)
	for name, c := range map[string]struct {
		status int
		answer string
		want   result
	}{
		"proxy":     {502, "<html>\x1b[31mBad", result{Err: "error: GET " + srv.URL + "/api/v1/vms?limit=1000: 502 Bad Gateway\n", Code: ExitFailure}},
		"no detail": {404, "{}", result{Err: "error: GET " + srv.URL + "/api/v1/vms?limit=1000: 404 Not Found\n", Code: ExitNotFound}},
		"no JSON":   {200, "<html>", result{Err: "error: decode the answer to GET /vms: invalid character '<' looking for beginning of value\n", Code: ExitFailure}},
		"too many":  {429, `{"detail":"slow down","code":"too_many_failures","status":200}`, result{Err: "error: slow down\n", Code: ExitAuth}},
	} {
		status, answer = c.status, c.answer
		if diff := cmp.Diff(c.want, r.over(srv.URL, "", "vm", "list")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWaitsTimeOut(t *testing.T) {
	r := withAll(t)
	for args, want := range map[string]string{
		"vm wait db --timeout 30ms":              "error: VM db is not idle after 30ms\n",
		"vm wait db --for gone --timeout 30ms":   "error: VM db is not gone after 30ms\n",
		"vm wait db --for frozen --timeout 30ms": "error: VM db is not frozen after 30ms\n",
		"cloudlet wait etl next --timeout 30ms":  "error: cloudlet next has not ended after 30ms\n",
	} {
		if diff := cmp.Diff(result{Err: want, Code: ExitTimeout}, r.run(strings.Fields(args)...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
	}
}

func TestWaitUsesOneConnection(t *testing.T) {
	r := withVMs(t)
	if got := r.run("vm", "wait", "db", "--timeout", "900ms"); got.Code != ExitTimeout {
		t.Fatal(got)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.asked) < 3 || r.conns != 1 {
		t.Errorf("%d requests over %d connections, want at least 3 over 1", len(r.asked), r.conns)
	}
}

func TestWaitSeesTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*agent.Cloudlet)
		code int
	}{
		"succeeded": {func(c *agent.Cloudlet) { c.State, c.ExitCode = agent.CloudletSucceeded, ptr(0) }, ExitOK},
		"failed":    {func(c *agent.Cloudlet) { c.State, c.ExitCode = agent.CloudletFailed, ptr(3) }, ExitFailure},
		"cancelled": {func(c *agent.Cloudlet) { c.State = agent.CloudletCancelled }, ExitFailure},
		"lost":      {func(c *agent.Cloudlet) { c.State = agent.CloudletLost }, ExitFailure},
		"late":      {func(c *agent.Cloudlet) { c.State = agent.CloudletDeadlineExceeded }, ExitDeadline},
	} {
		t.Run(name, func(t *testing.T) {
			r := withAll(t)
			r.agent.Alter("c1", func(c *agent.Cloudlet) { c.State = agent.CloudletSucceeded }) // it has failed as others know it
			w := r.start(t.Context(), nil, "cloudlet", "wait", "hog", "next", "etl", "--timeout", "1m", "-o", "name")
			r.agent.Alter("c2", c.end)
			if diff := cmp.Diff(result{Out: "hog\nnext\netl\n", Code: c.code}, w.wait()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailedCheckFails(t *testing.T) {
	r := newRig(t)
	r.agent.Has.Checks = []agent.Check{{Name: "cgroup", Detail: "no io controller", Fix: "boot with cgroup_no_v1=all"},
		{Name: "store", OK: true, Detail: "fine"}}
	want := result{Out: "CHECK   OK   FOUND             FIX\ncgroup  NO   no io controller  boot with cgroup_no_v1=all\nstore   yes  fine\n", Code: ExitFailure}
	if diff := cmp.Diff(want, r.run("host", "check")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDeletionThatFails(t *testing.T) {
	r := withAll(t)
	r.agent.Has.Operations[0].State, r.agent.Has.Operations[0].Error = agent.OperationFailed, "remove slice: device or resource busy"
	if diff := cmp.Diff(result{Err: "error: vm.delete: remove slice: device or resource busy\n", Code: ExitFailure}, r.run("vm", "delete", "db")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDeletionIsAwaited(t *testing.T) {
	r := withAll(t)
	r.agent.Has.Operations[0].State = agent.OperationRunning
	d := r.start(t.Context(), nil, "vm", "delete", "db")
	r.awaitRequest("GET /api/v1/operations/o0?wait=30s")
	select {
	case code := <-d.code:
		t.Fatalf("ended with %d while the VM is still there", code)
	case <-time.After(20 * time.Millisecond):
	}
	r.agent.Change(func() { r.agent.Has.Operations[0].State = agent.OperationSucceeded })
	if diff := cmp.Diff(result{Err: "VM db deleted\n"}, d.wait()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
