package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A result is how one test or step ended.
type result struct {
	Name  string // of the test or the step
	Where string // a kernel, or "unit"; empty for a step
	Took  time.Duration
	Err   error  // why it failed
	Log   string // the file with all that it said
	Again string // the command that runs just it
}

func (r result) title() string {
	return strings.TrimSpace(r.Where + " " + r.Name)
}

// A report prints what ends as it ends, and keeps it for the summary.
type report struct {
	out   io.Writer
	began time.Time
	dir   string // of logs

	mu      sync.Mutex
	results []result
	skipped int
	faults  []string // of the emulator
	planned []string // kernel tests of this run
	ended   int
}

func newReport(out io.Writer, dir string) *report {
	return &report{
		out:   out,
		began: time.Now(),
		dir:   dir,
	}
}

func (r *report) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "%s  %s\n", clock(time.Since(r.began)), fmt.Sprintf(format, args...))
}

// clock is a time since the start: 3:07.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%3d:%02d", s/60, s%60)
}

// plan adds to the kernel tests that are to come.
func (r *report) plan(jobs []job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range jobs {
		r.planned = append(r.planned, j.title())
	}
}

// missing are the kernel tests that were to come and did not. The caller holds r.mu.
func (r *report) missing() []string {
	left := map[string]int{}
	for _, title := range r.planned {
		left[title]++
	}
	for _, res := range r.results {
		left[res.title()]--
	}
	var missing []string
	for title, n := range left {
		if n > 0 {
			missing = append(missing, title)
		}
	}
	return slices.Sorted(slices.Values(missing))
}

// step tells how a step on this host ended.
func (r *report) step(res result) {
	r.add(res)
	r.say("%-6s %-50s %6.1f s", verdict(res.Err), res.title(), res.Took.Seconds())
}

// kernelTest tells how one ended.
func (r *report) kernelTest(res result) {
	r.add(res)
	r.mu.Lock()
	r.ended++
	ended, planned := r.ended, len(r.planned)
	r.mu.Unlock()
	r.say("%-6s %-50s %6.1f s  (%d of %d)", verdict(res.Err), res.title(), res.Took.Seconds(), ended, planned)
}

// unitTest is told only when it fails: there are many.
func (r *report) unitTest(res result) {
	r.add(res)
	if res.Err != nil {
		r.say("%-6s %-50s %6.1f s", verdict(res.Err), res.title(), res.Took.Seconds())
	}
}

func (r *report) skip() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.skipped++
}

// fault notes what the emulator did, not a test.
func (r *report) fault(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.faults = append(r.faults, what)
	r.mu.Unlock()
	r.say("emulator: %s", what)
}

func (r *report) add(res result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, res)
}

func verdict(err error) string {
	if err != nil {
		return "FAILED"
	}
	return "ok"
}

// What is shown of the log of a failed test: what the test itself said, then the
// end of everything. An agent says so much that the first may be far above.
const (
	ownLines = 12
	endLines = 16
)

// ownLine is one that a test has written, or the runtime about it.
var ownLine = regexp.MustCompile(`^\s*\w+_test\.go:\d+: |^panic: |^fatal error: |DATA RACE|^--- FAIL`)

// excerpt is what tells most about a failure.
func excerpt(log string) []string {
	lines := lastLines(log, endLines+1000)
	end := max(0, len(lines)-endLines)
	var own []string
	for _, line := range lines[:end] {
		if ownLine.MatchString(line) {
			own = append(own, line)
		}
	}
	return slices.Concat(own[max(0, len(own)-ownLines):], lines[end:])
}

// lastLines of a file, shortened where they are very long.
func lastLines(path string, n int) []string {
	const most = 256 << 10
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)

	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		if len(line) > 400 {
			lines[i] = line[:400] + " …"
		}
	}
	return lines
}

// summary tells what was slow, what failed and how to run just that; it
// returns whether all passed.
func (r *report) summary(interrupted bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := func(format string, args ...any) { fmt.Fprintf(r.out, format, args...) }

	slow := slices.Clone(r.results)
	slices.SortFunc(slow, func(a, b result) int { return cmp.Compare(b.Took, a.Took) })
	p("\nslowest:\n")
	for _, res := range slow[:min(10, len(slow))] {
		p("  %6.1f s  %s\n", res.Took.Seconds(), res.title())
	}

	failed, order := map[string][]result{}, []string{}
	runs := map[string]int{}
	passes, fails := 0, 0
	for _, res := range r.results {
		runs[res.title()]++
		switch {
		case res.Err == nil && res.Where == "": // a step is no test
			continue
		case res.Err == nil:
			passes++
			continue
		case errors.Is(res.Err, errTold):
			continue
		}
		fails++
		if len(failed[res.title()]) == 0 {
			order = append(order, res.title())
		}
		failed[res.title()] = append(failed[res.title()], res)
	}
	if fails > 0 {
		p("\nfailed:\n")
	}
	for _, title := range order {
		first := failed[title][0]
		p("  %s (%d of %d): %v\n", title, len(failed[title]), runs[title], first.Err)
		for _, line := range excerpt(first.Log) {
			p("    | %s\n", line)
		}
		if first.Log != "" {
			p("    all it said: %s\n", first.Log)
		}
		if first.Again != "" {
			p("    just this:   %s\n", first.Again)
		}
	}

	if missing := r.missing(); len(missing) > 0 && !interrupted {
		fails += len(missing)
		p("\nplanned and not run:\n  %s\n", strings.Join(missing, "\n  "))
	}
	if len(r.faults) > 0 {
		p("\nfaults of the emulator, not of a test: %d\n", len(r.faults))
		for _, f := range r.faults {
			p("  %s\n", f)
		}
	}
	p("\nlogs: %s\n", r.dir)
	p("time: %s\n", strings.TrimSpace(clock(time.Since(r.began))))
	switch {
	case interrupted:
		p("interrupted: what is missing above did not run\n")
	case passes+fails == 0:
		p("nothing to run\n")
		return true
	}

	p("%d passed, %d failed, %d skipped\n", passes, fails, r.skipped)
	return fails == 0 && !interrupted
}

// times is how long each kernel test took when it last ran on this machine:
// long ones start first.
type times map[string]float64

func timesFile() string { return filepath.Join(".cache", "test-times.json") }

func loadTimes() times {
	t := times{}
	if b, err := os.ReadFile(timesFile()); err == nil {
		_ = json.Unmarshal(b, &t) // it only orders
	}
	return t
}

// save adds what was measured in this run.
func (t times) save(results []result) error {
	for _, res := range results {
		if res.Where != "" && res.Where != unitTests && res.Err == nil {
			t[res.title()] = res.Took.Seconds()
		}
	}
	b, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(timesFile()+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(timesFile()+".new", timesFile())
}

// keptRuns is of how many runs the logs stay.
const keptRuns = 5

// logDir makes the directory of this run's logs and removes old ones, not those of runs that go on.
func logDir() (string, error) {
	all := filepath.Join(".cache", "test")
	dir := filepath.Join(all, fmt.Sprintf("%s-%d", time.Now().Format("20060102-150405"), os.Getpid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}

	old, err := os.ReadDir(all)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	old = slices.DeleteFunc(old, func(e fs.DirEntry) bool {
		pid, err := strconv.Atoi(e.Name()[strings.LastIndex(e.Name(), "-")+1:])
		return err == nil && alive(pid)
	})
	for i := 0; i < len(old)-keptRuns; i++ { // sorted by name, which is by time
		if err := os.RemoveAll(filepath.Join(all, old[i].Name())); err != nil {
			return "", err
		}
	}
	return filepath.Abs(dir)
}

// alive is whether there is a process of that number.
func alive(pid int) bool { return pid > 0 && syscall.Kill(pid, 0) != syscall.ESRCH }
