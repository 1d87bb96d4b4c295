package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
)

const usage = `usage: scripts/test [OPTION]... [PACKAGE...]

Without options: the everyday tests. They are style and linter, unit tests with the race detector, kernel tests as
root in test VMs, the dashboard in Chromium, and a real Prometheus and Alertmanager.

PACKAGE is a directory such as ./agent/guest; all when none is given. The name of a kernel test says where it runs:
TestKernel… on every kernel, TestSystem… on one of them, TestLong… only with --all; TestKernelFresh… as the first in a
VM that has just booted. With CLOUDFLASH_KERNEL_TESTS=1 they run here, as root on pure cgroup v2, not in a VM.

Examples:
  scripts/test                                                  about a quarter of an hour on two processors, 12 GiB of memory
  scripts/test --run '^TestSystemIdle' ./cmd/cloudflash         some kernel tests
  scripts/test --unit ./agent/...                               style, linter and unit tests of some packages
  scripts/test --repeat 5 --run '^TestKernelRate$'              does it fail now and then?

Options:
`

// options are what was asked for.
type options struct {
	unit, kernel, browser, monitoring bool

	all      bool
	kernels  []string
	run      *regexp.Regexp // nil is all
	packages []string
	repeat   int
	vms      int
	changed  bool
	since    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP,
		syscall.SIGPIPE) // or what is printed to nobody would leave VMs running
	code := start(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// start returns the exit code: 0 when all passed, 1 when something failed, 2
// for wrong options, 130 when it was interrupted.
func start(ctx context.Context, args []string) int {
	o, err := parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "test: %v; see scripts/test --help\n", err)
		return 2
	}

	s, err := newSuite(o)
	if err != nil {
		fmt.Fprintf(os.Stderr, "test: %v\n", err)
		return 1
	}
	if o.changed {
		s.report.say("a change since %s reaches: %s", cmp.Or(o.since, upstream(ctx)), s.reach)
	}
	for round := 1; round <= o.repeat && ctx.Err() == nil; round++ {
		s.round = round
		if o.repeat > 1 {
			s.report.say("round %d of %d", round, o.repeat)
		}
		s.runAll(ctx)
	}

	passed := s.report.summary(ctx.Err() != nil)
	switch {
	case ctx.Err() != nil:
		return 130
	case !passed:
		return 1
	}
	return 0
}

// parse reads the command line.
func parse(args []string) (options, error) {
	var o options
	var only [4]bool
	var run, kernels string

	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() { fmt.Fprint(os.Stdout, usage, flags.FlagUsages()) }
	flags.BoolVar(&only[0], "unit", false, "only what runs on this host")
	flags.BoolVar(&only[1], "kernel", false, "only kernel tests")
	flags.BoolVar(&only[2], "browser", false, "only the dashboard in Chromium")
	flags.BoolVar(&only[3], "monitoring", false, "only Prometheus and Alertmanager")
	flags.BoolVar(&o.all, "all", false, "everything on every kernel, with the long forms: 200 kills, soak, live scaling")
	flags.StringVar(&kernels, "kernels", "6.12,6.1", "`LIST` of Debian kernels to test on")
	flags.StringVar(&run, "run", "", "only kernel tests whose name matches `REGEXP`, on every kernel")
	flags.BoolVar(&o.changed, "changed", false, "only what a change since `REV` can reach: scripts/test --changed [REV];\n"+
		"without REV, the branch that this one follows, or else HEAD")
	flags.IntVar(&o.repeat, "repeat", 1, "run the selection `N` times and tell which ever failed")
	flags.IntVar(&o.vms, "vms", 4, "test `VMs` at a time")
	if err := flags.Parse(args); err != nil {
		return o, err
	}

	none := only == [4]bool{}
	o.unit, o.kernel = none || only[0], none || only[1]
	o.browser, o.monitoring = none || only[2], none || only[3]
	if o.repeat < 1 || o.vms < 1 {
		return o, errors.New("--repeat and --vms take a number from 1")
	}

	o.kernels = strings.Split(kernels, ",")
	for _, k := range o.kernels {
		if !regexp.MustCompile(`^[0-9]+\.[0-9]+$`).MatchString(k) {
			return o, fmt.Errorf("--kernels takes a list such as 6.12,6.1, not %q", kernels)
		}
	}
	if os.Getenv("CLOUDFLASH_KERNEL_TESTS") == "1" {
		o.kernels = []string{native}
	}

	for _, arg := range flags.Args() {
		switch {
		case arg == "." || arg == "./..." || strings.HasPrefix(arg, "./"):
			o.packages = append(o.packages, strings.TrimSuffix(arg, "/"))
		case o.changed && o.since == "":
			o.since = arg
		default:
			return o, fmt.Errorf("%q is neither an option nor a package such as ./agent", arg)
		}
	}
	if slices.Contains(o.packages, "./...") {
		o.packages = nil
	}
	if len(o.packages) > 0 && none {
		o.browser, o.monitoring = false, false
	}

	if run != "" {
		re, err := regexp.Compile(run)
		if err != nil {
			return o, fmt.Errorf("--run: %w", err)
		}
		o.run = re
		if none {
			o.unit, o.browser, o.monitoring = false, false, false
		}
	}
	return o, nil
}
