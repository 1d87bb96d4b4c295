package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// native is the "kernel" of tests that run on this host, not in a VM.
const native = "native"

// kernelTestName is what tests on a real kernel are called.
var kernelTestName = regexp.MustCompile(`^Test(Kernel|System|Long)`)

// A job is what a test VM does at one time.
type job struct {
	kernel string
	dir    string // of the package, below the root
	test   string
	fresh  bool    // wants a VM that has just booted
	serve  *served // nil for a test
}

func (j job) title() string {
	return j.kernel + " " + j.test
}

// long forms are measurements of many minutes, on a machine that is not busy.
func (j job) long() bool { return strings.HasPrefix(j.test, "TestLong") }

// compileKernelTests compiles every package with kernel tests into dir, where
// DIR/kernel.test is the test of package DIR, with its testdata beside it. It
// returns the names of the tests by package.
func compileKernelTests(ctx context.Context, out io.Writer, dir string, packages []string) (map[string][]string, error) {
	if len(packages) == 0 {
		return nil, nil
	}
	bin := filepath.Join(dir, "compiled")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, err
	}

	// Without what a debugger needs they link, and get into a VM, faster.
	args := []string{"test", "-c", "-tags", "nomsgpack", "-trimpath", "-ldflags=-s -w", "-o", bin + "/"}
	if err := with(command(ctx, out, "go", append(args, packages...)...), "CGO_ENABLED=0").Run(); err != nil {
		return nil, fmt.Errorf("compile kernel tests: %w", err)
	}

	tests := map[string][]string{}
	for _, p := range packages {
		file := filepath.Join(dir, p, "kernel.test")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if err := os.Rename(filepath.Join(bin, filepath.Base(p)+".test"), file); err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(p, "testdata")); err == nil {
			if err := os.CopyFS(filepath.Join(dir, p, "testdata"), os.DirFS(filepath.Join(p, "testdata"))); err != nil {
				return nil, err
			}
		}

		cmd := exec.CommandContext(ctx, file, "-test.list", kernelTestName.String())
		cmd.Stderr = out
		list, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("list the tests of %s: %w", p, err)
		}
		for name := range strings.Lines(string(list)) {
			if name = strings.TrimSpace(name); kernelTestName.MatchString(name) {
				tests[p] = append(tests[p], name)
			}
		}
		if len(tests[p]) == 0 {
			return nil, fmt.Errorf("%s has no kernel test", p)
		}
	}
	return tests, nil
}

// plan says which tests run on which kernel.
func plan(tests map[string][]string, o options) []job {
	var jobs []job
	for dir, names := range tests {
		for _, name := range names {
			j := job{
				dir:   dir,
				test:  name,
				fresh: strings.HasPrefix(name, "TestKernelFresh"),
			}
			switch {
			case o.run != nil && !o.run.MatchString(name):
				continue
			case o.run == nil && j.long() && !o.all:
				continue
			}
			for _, j.kernel = range on(name, o) {
				jobs = append(jobs, j)
			}
		}
	}
	return jobs
}

// on is the kernels that a test runs on. A test that runs on one of them always
// runs on the same.
func on(name string, o options) []string {
	if strings.HasPrefix(name, "TestSystem") && !o.all && o.run == nil {
		h := fnv.New32a()
		_, _ = io.WriteString(h, name)
		i := int(h.Sum32()) % len(o.kernels)
		return o.kernels[i : i+1]
	}
	return o.kernels
}
