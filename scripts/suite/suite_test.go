package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // unit kernel browser monitoring, or the error
	}{
		{"", "true true true true"},
		{"--kernel", "false true false false"},
		{"--unit --browser", "true false true false"},
		{"./agent", "true true false false"},
		{"--run X", "false true false false"},
		{"--unit --run X", "true false false false"},
		{"./...", "true true true true"},
		{"agent", `"agent" is neither`},
		{"--kernels 6.12,", "--kernels takes"},
		{"--repeat 0", "--repeat and --vms"},
		{"--run (", "--run: error parsing"},
		{"--nonsense", "unknown flag"},
	} {
		o, err := parse(strings.Fields(c.args))
		got := fmt.Sprint(o.unit, o.kernel, o.browser, o.monitoring)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.args, got, c.want)
		}
	}

	o, err := parse([]string{"--changed", "main~2", "./agent/"})
	if err != nil || o.since != "main~2" || !slices.Equal(o.packages, []string{"./agent"}) {
		t.Errorf("--changed REV PACKAGE: %+v %v", o, err)
	}
}

func TestPlan(t *testing.T) {
	tests := map[string][]string{"./a": {"TestKernelX", "TestSystemY", "TestLongZ", "TestKernelFreshW"}}
	count := func(args string) map[string]int {
		o, err := parse(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for _, j := range plan(tests, o) {
			n[j.test]++
			if j.fresh != (j.test == "TestKernelFreshW") {
				t.Errorf("%s: fresh is %v", j.test, j.fresh)
			}
		}
		return n
	}

	for args, want := range map[string]map[string]int{
		"":               {"TestKernelX": 2, "TestKernelFreshW": 2, "TestSystemY": 1},
		"--all":          {"TestKernelX": 2, "TestKernelFreshW": 2, "TestSystemY": 2, "TestLongZ": 2},
		"--run Y|Z":      {"TestSystemY": 2, "TestLongZ": 2},
		"--kernels 6.12": {"TestKernelX": 1, "TestKernelFreshW": 1, "TestSystemY": 1},
	} {
		if diff := cmp.Diff(want, count(args)); diff != "" {
			t.Errorf("%q:\n%s", args, diff)
		}
	}
}

func TestQueue(t *testing.T) {
	q := newQueue([]job{
		{kernel: "6.1", test: "short"},
		{kernel: "6.12", test: "other"},
		{kernel: "6.1", test: "long"},
		{kernel: "6.1", test: "fresh", fresh: true},
		{kernel: "6.1", test: "fresh too", fresh: true},
	}, times{"6.1 long": 100, "6.1 short": 1})

	first, _ := q.open()
	second, _ := q.open()
	third, _ := q.open()
	if first != "6.1" || second != "6.1" || third != "6.1" {
		t.Errorf("VMs with %s, %s, %s: the most to do, shared by three, is on 6.1", first, second, third)
	}
	if fourth, _ := q.open(); fourth != "6.1" {
		t.Errorf("the fourth VM has %s", fourth) // 121 s / 4 > 10 s
	}

	var order []string
	for fresh := true; ; fresh = false {
		j, ok := q.next("6.1", fresh)
		if !ok {
			break
		}
		order = append(order, j.test)
	}
	if want := []string{"fresh", "long", "short"}; !slices.Equal(order, want) {
		t.Errorf("in one VM: %v, want %v", order, want)
	}
	if j, ok := q.next("6.1", true); !ok || j.test != "fresh too" {
		t.Errorf("a new VM gets %v", j)
	}
	if rest := q.rest("6.12"); len(rest) != 1 || rest[0].test != "other" {
		t.Errorf("what is left: %v", rest)
	}
	if kernel, ok := q.open(); ok {
		t.Errorf("a VM with %s for nothing", kernel)
	}
}

// packages of a small tree: b imports a, c's tests import b, the agent's
// programs import a.
func packages() []goPackage {
	p := func(dir string, deps, tests []string) goPackage {
		path := strings.TrimSuffix("cloudflash/"+strings.TrimPrefix(dir, "./"), "/.")
		return goPackage{Dir: dir, ImportPath: path, Deps: deps, TestImports: tests}
	}
	a, b := []string{"cloudflash/cgroup"}, []string{"cloudflash/agent", "cloudflash/cgroup"}
	return []goPackage{
		p("./cgroup", nil, nil),
		p("./pagemap", nil, nil),
		p("./agent", a, nil),
		p("./api", b, nil),
		p("./web", nil, nil),
		p("./scripts/suite", nil, nil),
		p("./agent/guest/wire", nil, nil),
		p("./cmd/burn", nil, nil),
		p("./cmd/cloudflash-init", []string{"cloudflash/agent/guest/wire"}, nil),
		p("./cmd/cloudflash", append(slices.Clone(b), "cloudflash/api", "cloudflash/web"), []string{"cloudflash/pagemap"}),
	}
}

func TestReached(t *testing.T) {
	kernel := []string{"./agent", "./cgroup", "./cmd/cloudflash", "./pagemap"}
	for file, want := range map[string]reach{
		"README.md": {},
		"pagemap/testdata/6.12/x": {
			unit:   []string{"./pagemap", "./cmd/cloudflash"}, // whose tests import it
			kernel: []string{"./pagemap", "./cmd/cloudflash"},
		},
		"api/vms.go": {
			unit:       []string{"./api", "./cmd/cloudflash"},
			kernel:     []string{"./cmd/cloudflash"},
			browser:    true,
			monitoring: true,
		},
		"cgroup/cpu.go": {
			unit:       []string{"./cgroup", "./agent", "./api", "./cmd/cloudflash"},
			kernel:     []string{"./cgroup", "./agent", "./cmd/cloudflash"},
			browser:    true,
			monitoring: true,
		},
		"cmd/burn/main.go": { // every test of the agent may run it
			unit:       []string{"./cmd/burn"},
			kernel:     []string{"./agent", "./cmd/cloudflash"},
			browser:    true,
			monitoring: true,
		},
		"scripts/suite/vm.go":            {unit: []string{"./scripts/suite"}},
		"web/browser/test.mjs":           {browser: true},
		"scripts/monitoring/rules/a.yml": {monitoring: true},
	} {
		got := reached(packages(), kernel, []string{file})
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(reach{})); diff != "" {
			t.Errorf("%s:\n%s", file, diff)
		}
	}

	for _, file := range []string{"go.mod", "scripts/vm", "scripts/lib/images", ".ci/run"} {
		if got := reached(packages(), kernel, []string{file}); len(got.unit) != len(packages()) || len(got.kernel) != len(kernel) {
			t.Errorf("%s reaches everything, got %+v", file, got)
		}
	}
}

func testSuite(t *testing.T) (*suite, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	return &suite{
		options: options{repeat: 1},
		report:  newReport(&out, t.TempDir()),
		times:   times{},
	}, &out
}

func TestUnitEvents(t *testing.T) {
	s, out := testSuite(t)
	u := unitReport{suite: s, out: new(bytes.Buffer), said: map[string]*bytes.Buffer{}}
	failed := u.read(strings.NewReader(`{"Action":"output","Package":"cloudflash/a","Test":"TestX/one","Output":"    x_test.go:1: bad\n"}
{"Action":"fail","Package":"cloudflash/a","Test":"TestX/one"}
{"Action":"fail","Package":"cloudflash/a","Test":"TestX","Elapsed":1.5}
{"Action":"pass","Package":"cloudflash/a","Test":"TestY"}
{"Action":"skip","Package":"cloudflash/a","Test":"TestZ"}
{"Action":"skip","Package":"cloudflash/a","Test":"TestKernelZ"}
{"Action":"fail","Package":"cloudflash/a"}
no JSON
{"Action":"build-output","ImportPath":"cloudflash/b","Output":"b.go:1: syntax error\n"}
{"Action":"fail","Package":"cloudflash/b","FailedBuild":"cloudflash/b"}
{"Action":"pass","Package":"cloudflash/c"}
`))
	if failed != 2 {
		t.Errorf("%d failed, want a test and a package", failed)
	}
	if s.report.summary(false) {
		t.Error("all passed")
	}
	for _, want := range []string{
		"x_test.go:1: bad", "go test -race -tags nomsgpack -run '^TestX$' ./a", "unit b package", "b.go:1: syntax error",
		"1 passed, 2 failed, 1 skipped",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

func TestSummary(t *testing.T) {
	s, out := testSuite(t)
	for i := range 3 {
		res := result{Name: "TestSystemX", Where: "6.1", Took: time.Duration(i) * time.Second}
		if i == 1 {
			res.Err, res.Log, res.Again = errors.New("exit status 1"), "/no/such", "./scripts/test --run '^TestSystemX$'"
		}
		s.report.kernelTest(res)
	}
	s.report.fault("a VM did not boot")
	if s.report.summary(false) {
		t.Error("all passed")
	}
	for _, want := range []string{
		"6.1 TestSystemX (1 of 3): exit status 1", "just this:   ./scripts/test --run '^TestSystemX$'",
		"not of a test: 1", "2 passed, 1 failed, 0 skipped",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

// worker is a "VM" that is a shell on this host, as with CLOUDFLASH_KERNEL_TESTS=1.
func worker(t *testing.T) (vm *testVM, dir string) {
	t.Helper()
	dir = t.TempDir()
	b, err := os.ReadFile("../lib/worker")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "worker"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	vm, err = boot(t.Context(), native, dir, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vm.kill)
	return vm, dir
}

func TestWorker(t *testing.T) {
	vm, _ := worker(t)
	for _, c := range []struct {
		command string
		said    string
		status  int
	}{
		{"echo hello; exit 3", "hello\n\n", 3},
		{"printf half", "half\n", 0},
		{"exit 0", "\n", 0},
		{"kill -9 $$", "\n", 137},
		{"head -c 200000 /dev/zero | tr '\\0' x", strings.Repeat("x", 200000) + "\n", 0},
		{"printf '\\377\\0end 7\\n'", "\xff\x00end 7\n\n", 0},
	} {
		var said strings.Builder
		status, err := vm.do(t.Context(), c.command, time.Minute, func(line string) { said.WriteString(line) })
		if err != nil || status != c.status || said.String() != c.said {
			t.Errorf("%s: status %d, %v, %.80q", c.command, status, err, said.String())
		}
	}
	if _, err := vm.do(t.Context(), "one\ntwo", time.Minute, nil); err == nil {
		t.Error("two lines were taken for one command")
	}
	vm.end()
	if _, err := vm.do(t.Context(), "true", time.Minute, nil); !errors.Is(err, errGone) {
		t.Errorf("after the end: %v", err)
	}
}

func TestWorkerThatHangs(t *testing.T) {
	vm, _ := worker(t)
	if _, err := vm.do(t.Context(), "sleep 100", 50*time.Millisecond, func(string) {}); err == nil {
		t.Error("a command that hangs has ended")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() { vm.kill(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("it was not killed")
	}
}

// A test that does not run, is skipped, fails or ends its VM has not passed.
func TestOutcomes(t *testing.T) {
	s, _ := testSuite(t)
	for script, want := range map[string]string{
		`echo "--- PASS: TestKernelX (0.00s)"`:                                 "",
		`echo "ok, nothing to run"`:                                            "it did not say that it passed",
		`echo "--- PASS: TestKernelX (0.00s)"; echo "    --- SKIP: a"`:         "a kernel test was skipped",
		`echo "--- PASS: TestKernelX (0.00s)"; exit 1`:                         "exit status 1",
		`echo "--- PASS: TestKernelX (0.00s)"; kill -9 $PPID`:                  errGone.Error(),
		`[ "$CLOUDFLASH_KERNEL_TESTS$6" = "1^TestKernelX\$" ] || exit; exit 9`: "exit status 9",
	} {
		vm, dir := worker(t)
		if err := os.WriteFile(filepath.Join(dir, "kernel.test"), []byte("#!/bin/bash\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		failed, gone := s.kernelTest(t.Context(), vm, job{dir: ".", test: "TestKernelX"}, new(bytes.Buffer))
		got := ""
		if err := errors.Join(failed, gone); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}

func TestHasTest(t *testing.T) {
	dir := t.TempDir()
	source := "package x\n\nfunc TestKernelOne(t *testing.T) {}\nfunc TestUnit(t *testing.T) {}\nfunc helper() {}\n"
	if err := os.WriteFile(filepath.Join(dir, "x_kernel_test.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]bool{"^TestKernelOne$": true, "One": true, "Unit": false, "helper": false, "Two": false} {
		if got := hasTest(dir, regexp.MustCompile(pattern)); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}

// An agent in a VM that ends early ends what uses it, and fails.
func TestServe(t *testing.T) {
	worker := func(t *testing.T) (*testVM, string) {
		vm, dir := worker(t)
		t.Chdir("../..") // what runs on this host does so in the root of the repository
		return vm, dir
	}
	for what, c := range map[string]struct {
		guest, host, want string
	}{
		"well":                 {`echo "answer 42"; read -r _`, `[[ $2 == 42 ]]`, ""},
		"the host fails":       {`echo "answer 42"; read -r _`, `false`, "exit status 1"},
		"no answer":            {`exit 3`, `true`, "did not come up: exit status 3"},
		"the guest ends":       {`echo "answer 42"; exit 0`, `sleep 100`, "ended while it was used"},
		"the guest ends badly": {`echo "answer 42"; read -r _; exit 4`, `true`, "did not end well: exit status 4"},
	} {
		t.Run(what, func(t *testing.T) {
			vm, dir := worker(t)
			if err := os.WriteFile(filepath.Join(dir, "guest"), []byte(c.guest+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			log, err := os.Create(filepath.Join(dir, "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			failed, gone := vm.serve(t.Context(), &served{guest: "guest", host: c.host}, log)
			if gone != nil || (failed == nil) != (c.want == "") || failed != nil && !strings.Contains(failed.Error(), c.want) {
				t.Errorf("%v, %v", failed, gone)
			}
		})
	}
}

// What a test says itself is shown, however much the agent says after it.
func TestExcerpt(t *testing.T) {
	var log strings.Builder
	fmt.Fprintln(&log, "=== RUN   TestX\n    x_test.go:12: 3 Mbit/s, limit 5\npanic: gone")
	for n := range 200 {
		fmt.Fprintf(&log, "        time=%d level=INFO\n", n)
	}
	fmt.Fprintln(&log, "--- FAIL: TestX (1.00s)\nFAIL")
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte(log.String()), 0o644); err != nil {
		t.Fatal(err)
	}

	got := excerpt(file)
	want := []string{"    x_test.go:12: 3 Mbit/s, limit 5", "panic: gone"}
	if len(got) != len(want)+endLines || !slices.Equal(got[:2], want) || got[len(got)-1] != "FAIL" {
		t.Errorf("%q", got)
	}
}
