package cli

import (
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/api/apitest"
	"github.com/google/go-cmp/cmp"
)

// withAll fills a rig with some of everything.
func withAll(t testing.TB) *rig {
	r := withVMs(t)
	started := apitest.Ago(10 * time.Second)
	done := started.Add(2500 * time.Millisecond)
	deadline := done.Add(1500 * time.Millisecond)
	r.agent.Has.Cloudlets = []agent.Cloudlet{
		{ID: "c0", Name: "etl", VM: "v0", VMName: "db", State: agent.CloudletSucceeded, SLA: 3, Argv: []string{"xz", "-9"}, CreatedAt: started,
			StartedAt: &started, FinishedAt: &done, DeadlineAt: &deadline, ExitCode: ptr(0),
			Usage: agent.Usage{CPUSeconds: 1.25, MemoryPeakBytes: 10 << 20, ReadBytes: 2048}},
		{ID: "c1", Name: "hog", VM: "v0", VMName: "db", State: agent.CloudletFailed, SLA: 1, CreatedAt: started.Add(-time.Second), StartedAt: &started,
			FinishedAt: &done, Signal: "SIGKILL", Reason: "oom", OverrunSeconds: 2, DeadlineAt: &deadline},
		{ID: "c2", Name: "next", State: agent.CloudletQueued, SLA: 2, CreatedAt: started.Add(-2 * time.Second), Reason: "no VM fits"},
	}
	r.agent.Has.Events = []agent.Event{
		{Seq: 1, At: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.Local), Level: "info", Kind: "vm.created", VM: "v0", Message: "VM db created"},
		{Seq: 2, At: time.Date(2026, 1, 2, 3, 4, 6, 0, time.Local), Level: "warn", Kind: "cloudlet.finished", Cloudlet: "c1", Message: "cloudlet hog failed: oom"},
	}
	r.agent.Has.Operations = []agent.Operation{{ID: "o0", Kind: "vm.delete", Target: "v0",
		State: agent.OperationSucceeded, CreatedAt: apitest.Ago(0)}}
	r.agent.Has.Tokens = []agent.Token{{ID: "t0", Name: "ci", Role: "viewer", Kind: "token", CreatedAt: apitest.Ago(3 * 24 * time.Hour)}}
	r.agent.Has.Checks = []agent.Check{{Name: "cgroup", OK: true, Detail: "writable"}, {Name: "store", OK: true, Detail: "fine"}}
	r.agent.Has.Scaling = someScaling()
	return r
}

// anything stands for output that another test looks at.
const anything = "*"

func TestEveryVerbAsksAndPrints(t *testing.T) {
	for name, c := range map[string]struct {
		args string
		want []request
		out  string
		err  string
	}{
		"vm create": {args: "vm create api --cpus 500m --memory 512MiB --storage 1GiB --bandwidth 100Mbit --pids 64 --io-wbps 5MiB --io-riops 9 --image /img --label a=b --label c=",
			want: []request{{"POST /api/v1/vms", `{"bandwidth_bps":100000000,"cpus":0.5,"image":"/img","io":{"rbps":0,"riops":9,"wbps":5242880,"wiops":0},"labels":{"a":"b","c":""},"memory_bytes":536870912,"name":"api","pids":64,"storage_bytes":1073741824}`}},
			out:  "NAME  STATE    CPU       MEMORY   PIDS   CLOUDLETS  IDLE  AGE\napi   running  0.00/max  0 B/max  0/max  0          -     2d\n"},
		"vm create, name only": {args: "vm create api -o name", want: []request{{"POST /api/v1/vms", `{"name":"api"}`}}, out: "api\n"},
		"vm list by state":     {args: "vm ls --state failed --no-headers -o name", want: []request{{"GET /api/v1/vms?limit=1000&state=failed", ""}}, out: "web\n"},
		"vm show":              {args: "vm show web", want: []request{{"GET /api/v1/vms/web", ""}, {"GET /api/v1/autoscale/status?vm=v1", ""}}, out: anything},
		"vm set": {args: "vm set db --cpus 1.5 -o csv --no-headers", want: []request{{"PATCH /api/v1/vms/db", `{"cpus":1.5}`}},
			out: "db,running,0.50/1.5,100 MiB/1 GiB,3/256,1,-,2h10m,v0,host,\"read 5 MiB/s, write 100 op/s\",0 B/max,nat,10.88.0.2,0 B,0 B,0,42,\n"},
		"vm create --keep":    {args: "vm create api --keep -o name", want: []request{{"POST /api/v1/vms", `{"keep":true,"name":"api"}`}}, out: "api\n"},
		"vm set --keep":       {args: "vm set db --keep -o name", want: []request{{"PATCH /api/v1/vms/db", `{"keep":true}`}}, out: "db\n"},
		"vm set --keep=false": {args: "vm set db --keep=false -o name", want: []request{{"PATCH /api/v1/vms/db", `{"keep":false}`}}, out: "db\n"},
		"vm set io keeps the rest": {args: "vm set db --io-wbps 0 -o name",
			want: []request{{"GET /api/v1/vms/db", ""}, {"PATCH /api/v1/vms/db", `{"io":{"rbps":7,"riops":0,"wbps":0,"wiops":0}}`}}, out: "db\n"},
		"vm delete": {args: "vm delete db web --grace 1m", want: []request{{"DELETE /api/v1/vms/db?grace=1m0s", ""}, {"DELETE /api/v1/vms/web?grace=1m0s", ""}},
			err: "VM db deleted\nVM web deleted\n"},
		"vm delete --no-wait":        {args: "vm rm db --no-wait -o name", want: []request{{"DELETE /api/v1/vms/db?grace=5s", ""}}, out: "o0\n"},
		"vm freeze":                  {args: "vm freeze db web -o name", want: []request{{"POST /api/v1/vms/db/actions/freeze", ""}, {"POST /api/v1/vms/web/actions/freeze", ""}}, out: "db\nweb\n"},
		"vm thaw":                    {args: "vm thaw db -o name", want: []request{{"POST /api/v1/vms/db/actions/thaw", ""}}, out: "db\n"},
		"vm wait":                    {args: "vm wait web", want: []request{{"GET /api/v1/vms/web", ""}}},
		"vm wait for gone":           {args: "vm wait nix --for gone", want: []request{{"GET /api/v1/vms/nix", ""}}},
		"vm wait for running":        {args: "vm wait db --for running", want: []request{{"GET /api/v1/vms/db", ""}}},
		"a name is one path segment": {args: "vm wait ../host?x=/%2e --for gone", want: []request{{"GET /api/v1/vms/..%2Fhost%3Fx=%2F%252e", ""}}},
		"cloudlet submit": {args: "cloudlet submit --name job --vm db --sla 3 --deadline 1m30s --on-deadline continue -e A=1 --env B=x=y --workdir /data/w --cpus 0.5 --memory 64MiB -o name -- sh -c exit -o json",
			want: []request{{"POST /api/v1/cloudlets", `{"argv":["sh","-c","exit","-o","json"],"deadline_seconds":90,"env":{"A":"1","B":"x=y"},"name":"job","on_deadline":"continue","request":{"cpus":0.5,"memory_bytes":67108864},"sla":3,"vm":"db","workdir":"/data/w"}`}},
			out:  "job\n"},
		"flags end where the command begins": {args: "cloudlet submit --name job -o name ls -o json --vm x",
			want: []request{{"POST /api/v1/cloudlets", `{"argv":["ls","-o","json","--vm","x"],"name":"job","on_deadline":"kill","sla":2}`}}, out: "job\n"},
		"the built-in burn": {args: "cloudlet submit --name job -o name --duration 1500ms",
			want: []request{{"POST /api/v1/cloudlets", `{"duration_seconds":1.5,"name":"job","on_deadline":"kill","sla":2}`}}, out: "job\n"},
		"cloudlet list": {args: "cloudlet list --vm db --state failed", want: []request{{"GET /api/v1/cloudlets?limit=1000&state=failed&vm=db", ""}},
			out: "NAME  VM  STATE   SLA  DEADLINE        CPU TIME  PEAK  ELAPSED  EXIT     REASON\nhog   db  failed  1    missed by 2.0s  0.00s     0 B   2.5s     SIGKILL  oom\n"},
		"cloudlet show wide": {args: "cloudlet show etl -o wide", want: []request{{"GET /api/v1/cloudlets/etl", ""}},
			out: "NAME  VM  STATE      SLA  DEADLINE        CPU TIME  PEAK    ELAPSED  EXIT  REASON  ID  READ   WRITTEN  PID  ARGV\n" +
				"etl   db  succeeded  3    met, 1.5s left  1.25s     10 MiB  2.5s     0             c0  2 KiB  0 B      0    [\"xz\" \"-9\"]\n"},
		"cloudlet cancel": {args: "cloudlet cancel next", want: []request{{"DELETE /api/v1/cloudlets/next", ""}},
			out: "NAME  VM  STATE   SLA  DEADLINE  CPU TIME  PEAK  ELAPSED  EXIT  REASON\nnext      queued  2    -         0.00s     0 B   -        -     no VM fits\n"},
		"cloudlet wait": {args: "cloudlet wait etl -o name", want: []request{{"GET /api/v1/cloudlets/etl?wait=30s", ""}}, out: "etl\n"},
		"host info": {args: "host info", want: []request{{"GET /api/v1/host", ""}}, out: `host        box, Debian 13, Linux 6.12.1
agent       1.2.3, up 5h30m, 20 MiB resident
cpus        16, 25 % busy, load 1.50; promised 2.5 of 1600
memory      32 GiB, 2 GiB used; promised 1 GiB of 32 GiB
storage     100 GiB, 0 B used; promised 0 B of 100 GiB
VMs         2
cloudlets   2 queued, 1 running
cgroup      /sys/fs/cgroup/cloudflash
state       /var/lib/cloudflash
`},
		"host info csv": {args: "host info -o csv", want: []request{{"GET /api/v1/host", ""}}, out: "name,cpus,memory_bytes\nbox,16,34359738368\n"},
		"host check": {args: "host check", want: []request{{"GET /api/v1/host/checks?limit=1000", ""}},
			out: "CHECK   OK   FOUND     FIX\ncgroup  yes  writable\nstore   yes  fine\n"},
		"events": {args: "events", want: []request{{"GET /api/v1/events?limit=1000&since=0", ""}},
			out: "SEQ  TIME          LEVEL  KIND               MESSAGE\n1    03:04:05.006  info   vm.created         VM db created\n2    03:04:06.000  warn   cloudlet.finished  cloudlet hog failed: oom\n"},
		"events since":            {args: "events --since 1 -o name", want: []request{{"GET /api/v1/events?limit=1000&since=1", ""}}, out: "2\n"},
		"autoscale status":        {args: "autoscale status web", want: []request{{"GET /api/v1/autoscale/status?vm=web", ""}}, out: anything},
		"autoscale policy":        {args: "autoscale policy", want: []request{{"GET /api/v1/autoscale/policy", ""}}, out: anything},
		"autoscale events of one": {args: "autoscale events db --since 1 -o name", want: []request{{"GET /api/v1/autoscale/events?limit=1000&since=1&vm=db", ""}}, out: "2\n"},
		"token create":            {args: "token create ci --role admin", want: []request{{"POST /api/v1/tokens", `{"name":"ci","role":"admin"}`}}, out: "s3cret\n"},
		"token create csv": {args: "token create ci -o csv", want: []request{{"POST /api/v1/tokens", `{"name":"ci","role":"viewer"}`}},
			out: "name,role,id,secret\nci,viewer,t7,s3cret\n"},
		"token list": {args: "token list", want: []request{{"GET /api/v1/tokens?limit=1000", ""}},
			out: "NAME  ROLE    KIND   AGE  ID\nci    viewer  token  3d   t0\n"},
		"token revoke":    {args: "token revoke ci", want: []request{{"DELETE /api/v1/tokens/ci", ""}}},
		"api":             {args: "api get /api/v1/operations/o0", want: []request{{"GET /api/v1/operations/o0", ""}}, out: anything},
		"api with a body": {args: `api PATCH /api/v1/vms/db {"cpus":3}`, want: []request{{"PATCH /api/v1/vms/db", `{"cpus":3}`}}, out: anything},
		"version":         {args: "version", want: []request{{"GET /api/v1/host", ""}}, out: "client: dev\nagent:  1.2.3 on Linux 6.12.1\n"},
		"version csv":     {args: "version -o csv", want: []request{{"GET /api/v1/host", ""}}, out: "client,agent,kernel\ndev,1.2.3,6.12.1\n"},
		"version alone":   {args: "version --client", out: "client: dev\n"},
		"serve":           {args: "serve --listen :1 -x", err: "serve --listen :1 -x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := withAll(t)
			got := r.run(strings.Fields(c.args)...)
			if diff := cmp.Diff(c.want, r.requests()); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			if got.Code != 0 || got.Err != c.err {
				t.Errorf("exit code %d, said %q, want 0 and %q", got.Code, got.Err, c.err)
			}
			if c.out != anything && got.Out != c.out {
				t.Errorf("printed (-want +got):\n%s", cmp.Diff(c.out, got.Out))
			}
		})
	}
}

func TestPublishedPorts(t *testing.T) {
	for text, want := range map[string]agent.Port{
		"8080:80":            {HostPort: 8080, GuestPort: 80},
		"53:5353/udp":        {HostPort: 53, GuestPort: 5353, Protocol: "udp"},
		"127.0.0.1:8080:80":  {HostIP: "127.0.0.1", HostPort: 8080, GuestPort: 80},
		"[::1]:8080:80/tcp":  {HostIP: "::1", HostPort: 8080, GuestPort: 80, Protocol: "tcp"},
		"99999:0":            {HostPort: 99999}, // for the agent to refuse
		"localhost:8080:443": {HostIP: "localhost", HostPort: 8080, GuestPort: 443},
	} {
		if got, err := port(text); err != nil || got != want {
			t.Errorf("%s: %+v %v", text, got, err)
		}
	}
	for _, text := range []string{"", "80", "a:80", "80:b", "80:", ":80", "80:80:"} {
		if got, err := port(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
