package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A suite is one run of the tests.
type suite struct {
	options options
	report  *report
	times   times
	reach   reach // what is to be tested
	round   int   // of --repeat, from 1
	slots   int   // that have been begun
}

// errNothing is a selection that is empty: it cannot pass.
var errNothing = errors.New("no kernel test matches what was asked for")

func newSuite(o options) (*suite, error) {
	reach, err := findReach(context.Background(), o)
	if err != nil {
		return nil, err
	}
	s := &suite{
		options: o,
		times:   loadTimes(),
		reach:   reach,
	}
	s.options.unit = o.unit && len(s.reach.unit) > 0
	s.options.kernel = o.kernel && len(s.reach.kernel) > 0
	s.options.browser = o.browser && s.reach.browser
	s.options.monitoring = o.monitoring && s.reach.monitoring
	if o.kernel && !o.unit && !s.needVMs() && !o.changed {
		return nil, errNothing
	}

	dir, err := logDir()
	if err != nil {
		return nil, err
	}
	s.report = newReport(os.Stdout, dir)
	return s, nil
}

func (s *suite) needVMs() bool {
	return s.options.kernel || s.options.browser || s.options.monitoring
}

// vmKernels is what test VMs boot.
func (s *suite) vmKernels() []string {
	if s.options.kernels[0] == native {
		return []string{"6.12"} // for the browser and the monitoring
	}
	return s.options.kernels
}

func programs() string {
	dir, err := filepath.Abs(".cache/bin")
	if err != nil {
		return ".cache/bin"
	}
	return dir
}

// runAll runs what was selected, once. What fails stops nothing but what
// builds on it. What runs on this host comes before the VMs: compilers beside
// them would take the processors from tests that measure time.
func (s *suite) runAll(ctx context.Context) {
	if !s.needVMs() && !s.options.unit {
		return
	}
	if !s.step(ctx, s.hostPackages()) {
		return
	}
	dir, err := placeForVMs()
	if err != nil {
		s.report.step(result{Name: "a place for kernel tests", Err: err})
		return
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			s.report.say("%v", err)
		}
	}()

	var beside sync.WaitGroup
	var jobs []job
	beside.Go(func() { jobs = s.forVMs(ctx, dir) })
	if s.options.unit {
		beside.Go(func() { s.style(ctx) })
		s.units(ctx)
	}
	if s.options.monitoring {
		s.step(ctx, monitoringFiles())
	}
	beside.Wait()
	s.inVMs(ctx, dir, jobs)
}

// placeForVMs is a directory for what test VMs get, and removes those of runs
// that were killed.
func placeForVMs() (string, error) {
	all := filepath.Join(".cache", "test-vms")
	dir := filepath.Join(all, strconv.Itoa(os.Getpid()))
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	old, err := os.ReadDir(all)
	if err != nil {
		return "", err
	}
	for _, e := range old {
		if pid, err := strconv.Atoi(e.Name()); err == nil && !alive(pid) {
			if err := os.RemoveAll(filepath.Join(all, e.Name())); err != nil {
				return "", err
			}
		}
	}
	return filepath.Abs(dir)
}

// units runs the unit tests.
func (s *suite) units(ctx context.Context) {
	s.step(ctx, s.unit("unit tests", "nomsgpack", s.reach.unit))
	if slices.Contains(s.reach.unit, "./agent/gpu") {
		// Binding is lazy: the library is there only where its driver is.
		s.step(ctx, s.unit("unit tests with NVML", "nomsgpack,nvml", []string{"./agent/gpu"}, "CGO_ENABLED=1",
			"CGO_CFLAGS=-O2 -g -Wno-deprecated-declarations", "CGO_LDFLAGS=-Wl,-z,lazy"))
	}
}

// forVMs makes what test VMs need and returns what they are to do: nothing
// where a part of it failed.
func (s *suite) forVMs(ctx context.Context, dir string) []job {
	if !s.needVMs() {
		return nil
	}
	var images sync.WaitGroup
	made := false
	images.Go(func() { made = s.step(ctx, s.images()) })
	var jobs []job
	built := s.step(ctx, step{"build for the test VMs", "", func(ctx context.Context, out io.Writer) error {
		var err error
		jobs, err = s.prepare(ctx, out, dir)
		return err
	}})
	images.Wait()
	if !built || !made {
		return nil
	}
	return jobs
}

// inVMs does the jobs in test VMs.
func (s *suite) inVMs(ctx context.Context, dir string, jobs []job) {
	if len(jobs) == 0 {
		return
	}
	s.report.plan(jobs)
	long := slices.DeleteFunc(slices.Clone(jobs), func(j job) bool { return !j.long() })
	short := slices.DeleteFunc(jobs, job.long)
	s.queue(ctx, dir, short, s.options.vms)
	s.queue(ctx, dir, long, min(s.options.vms, longVMs)) // when the machine has nothing else to do
	if err := s.times.save(s.report.results); err != nil {
		s.report.say("%v", err)
	}
}

// longVMs is how many VMs run long tests at a time: each emulates its processors
// in one thread, and is not to share a processor of this host.
const longVMs = 2

// queue has so many VMs do the jobs.
func (s *suite) queue(ctx context.Context, dir string, jobs []job, vms int) {
	q := newQueue(jobs, s.times)
	var wg sync.WaitGroup
	for range min(vms, len(jobs)) {
		i := s.slots
		s.slots++
		wg.Go(func() { s.slot(ctx, q, dir, i) })
	}
	wg.Wait()
}

// prepare puts into dir what VMs need, and returns what they are to do.
func (s *suite) prepare(ctx context.Context, out io.Writer, dir string) ([]job, error) {
	if err := bash(ctx, out, "build").Run(); err != nil {
		return nil, err
	}
	for _, name := range []string{"worker", "browser-guest", "monitoring-guest", "agent-gone"} {
		b, err := os.ReadFile(filepath.Join("scripts/lib", name))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			return nil, err
		}
	}

	// Recorded demand for the long tests; they tell when there is none.
	traces := cmp.Or(os.Getenv("CLOUDFLASH_TRACES"), "../shared/traces")
	if _, err := os.Stat(traces); err == nil {
		if err := os.CopyFS(filepath.Join(dir, "traces"), os.DirFS(traces)); err != nil {
			return nil, err
		}
	}

	var jobs []job
	if s.options.kernel {
		tests, err := compileKernelTests(ctx, out, dir, s.reach.kernel)
		if err != nil {
			return nil, err
		}
		jobs = plan(tests, s.options)
		if len(jobs) == 0 {
			return nil, errNothing
		}
	}
	if s.options.browser {
		jobs = append(jobs, job{kernel: s.vmKernels()[0], test: "dashboard in Chromium", serve: &browser})
	}
	if s.options.monitoring {
		jobs = append(jobs, job{kernel: s.vmKernels()[0], test: "Prometheus and Alertmanager", serve: &monitoring})
	}
	return jobs, nil
}

// slot runs one VM after the other until the queue is empty.
func (s *suite) slot(ctx context.Context, q *queue, dir string, i int) {
	for n, faults := 0, 0; ctx.Err() == nil; n++ {
		kernel, ok := q.open()
		if !ok {
			return
		}
		vm, err := boot(ctx, kernel, dir, filepath.Join(s.report.dir, fmt.Sprintf("vm-%d-%d-%s.log", i, n, kernel)))
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			faults = 0
			s.countBoots(vm, kernel)
			s.work(ctx, q, vm)
		default:
			s.report.fault("a VM with Linux %s did not boot: %v", kernel, err)
			if faults++; faults == 3 {
				s.giveUp(q, kernel)
			}
		}
		q.close(kernel)
	}
}

// countBoots notes how often scripts/vm had to boot a VM before it came up.
func (s *suite) countBoots(vm *testVM, kernel string) {
	told, err := os.ReadFile(vm.told.Name())
	if err != nil {
		return
	}
	for range strings.Count(string(told), "the VM did not start; once more") {
		s.report.fault("a VM with Linux %s did not boot at once", kernel)
	}
}

// giveUp fails what cannot run as no VM boots.
func (s *suite) giveUp(q *queue, kernel string) {
	for _, j := range q.rest(kernel) {
		s.report.kernelTest(result{
			Name:  j.test,
			Where: kernel,
			Err:   errors.New("not run: no VM boots"),
		})
	}
}

// work gives a VM its jobs until there are none, or one fails.
func (s *suite) work(ctx context.Context, q *queue, vm *testVM) {
	for fresh := true; ; fresh = false {
		j, ok := q.next(vm.kernel, fresh)
		if !ok {
			vm.end()
			return
		}
		if !s.do(ctx, vm, j) {
			vm.kill()
			return
		}
	}
}

// do runs one job and returns whether its VM is good for another.
func (s *suite) do(ctx context.Context, vm *testVM, j job) bool {
	res := result{
		Name:  j.test,
		Where: j.kernel,
		Again: s.again(j),
	}
	log, err := s.log(res.title())
	if err != nil {
		res.Err = err
		s.report.kernelTest(res)
		return true
	}
	defer log.Close()
	res.Log = log.Name()

	began := time.Now()
	var gone error
	if j.serve != nil {
		res.Again = j.serve.again
		res.Err, gone = vm.serve(ctx, j.serve, log)
	} else {
		res.Err, gone = s.kernelTest(ctx, vm, j, log)
	}
	res.Took = time.Since(began)
	if ctx.Err() != nil {
		return false
	}
	if gone != nil {
		res.Err = errors.Join(res.Err, gone)
		fmt.Fprintf(log, "\n%v; what the VM said: %s\n", gone, vm.told.Name())
	}
	s.report.kernelTest(res)
	return res.Err == nil
}

// again is the command that runs just one test, as it was run.
func (s *suite) again(j job) string {
	var words []string
	for _, e := range s.environment() {
		if name, _, _ := strings.Cut(e, "="); os.Getenv(name) != "" && name != "CLOUDFLASH_TRACES" {
			words = append(words, e)
		}
	}
	words = append(words, "./scripts/test")
	if s.options.all {
		words = append(words, "--all")
	}
	if j.kernel != native { // CLOUDFLASH_KERNEL_TESTS says it
		words = append(words, "--kernels", j.kernel)
	}
	return strings.Join(append(words, "--run", "'^"+j.test+"$'", j.dir), " ")
}

// kernelTest runs one test in a VM. The second error means that the VM is of
// no use any more.
func (s *suite) kernelTest(ctx context.Context, vm *testVM, j job, log io.Writer) (failed, gone error) {
	within := jobTime
	if s.options.all {
		within = longJobTime
	}
	command := fmt.Sprintf("export %s; cd %s && exec ./kernel.test -test.v -test.paniconexit0 -test.timeout %s -test.run '^%s$' </dev/null",
		strings.Join(s.environment(), " "), j.dir, within, j.test)

	ran := false
	status, gone := vm.do(ctx, command, within+jobGrace, func(line string) {
		fmt.Fprint(log, line)
		ran = ran || strings.HasPrefix(line, "--- PASS: "+j.test+" ")
		if strings.HasPrefix(strings.TrimSpace(line), "--- SKIP: ") {
			failed = errors.New("a kernel test was skipped")
		}
	})
	switch {
	case gone != nil || failed != nil:
		return failed, gone
	case status != 0:
		return fmt.Errorf("exit status %d", status), nil
	case !ran:
		return errors.New("it did not say that it passed"), nil
	}
	return nil, nil
}

// environment is what the kernel tests get of this run's.
func (s *suite) environment() []string {
	env := []string{"CLOUDFLASH_KERNEL_TESTS=1", "CLOUDFLASH_TRACES=$PWD/traces"}
	long := map[string]string{"CLOUDFLASH_CHAOS_KILLS": "200", "CLOUDFLASH_SOAK": "300"}
	for _, name := range []string{"CLOUDFLASH_CHAOS_KILLS", "CLOUDFLASH_SOAK", "CLOUDFLASH_SEED"} {
		value := os.Getenv(name)
		if value == "" && s.options.all {
			value = long[name]
		}
		if value != "" {
			env = append(env, name+"='"+strings.ReplaceAll(value, "'", "")+"'")
		}
	}
	return env
}
