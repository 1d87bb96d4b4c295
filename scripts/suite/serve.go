package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// served is an agent in a test VM that a program on this host talks to.
type served struct {
	guest string // a script in scripts/lib, run in the VM; it prints "answer …" when the agent is there
	host  string // a line of bash; $1 is the port here, $2 the answer
	again string
}

var (
	browser = served{
		guest: "browser-guest",
		host:  `. scripts/lib/browser; browser_test "$2"`,
		again: "./scripts/test --browser",
	}
	monitoring = served{
		guest: "monitoring-guest",
		host:  `. scripts/lib/monitoring; monitoring_test "$1" "$2"`,
		again: "./scripts/test --monitoring",
	}
)

// serveTime is how long both sides may take together.
const serveTime = 20 * time.Minute

// serve runs both sides, and ends the one on this host when the other has ended
// before it. Both write to log. The second error means that the VM is of no use any more.
func (vm *testVM) serve(ctx context.Context, s *served, log *os.File) (failed, gone error) {
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	host := make(chan error, 1)
	asked := false
	answered := func(answer string) {
		asked = true
		go func() {
			host <- bash(ctx, log, s.host, fmt.Sprint(vm.port), answer).Run()
			vm.tell("end")
		}()
	}

	status, gone := vm.do(ctx, fmt.Sprintf("bash ./%s %d", s.guest, vm.port), serveTime, func(line string) {
		fmt.Fprint(log, line)
		if answer, ok := strings.CutPrefix(strings.TrimSpace(line), "answer "); ok && !asked {
			answered(answer)
		}
	})
	if !asked {
		return fmt.Errorf("the agent in the VM did not come up: exit status %d", status), gone
	}

	select {
	case failed = <-host:
		if gone != nil && ctx.Err() == nil && !errors.Is(gone, errGone) {
			failed = errors.Join(errors.New("the agent in the VM did not end when it was told to"), failed)
		}
	default: // it was not the one that said "end"
		cancel()
		what := "the agent in the VM ended while it was used"
		switch {
		case errors.Is(gone, errGone):
			what = "the VM ended while it was used"
		case gone != nil:
			what = "the program on this host did not end"
		}
		failed = errors.Join(errors.New(what), <-host)
	}
	if failed == nil && gone == nil && status != 0 {
		failed = fmt.Errorf("the agent in the VM did not end well: exit status %d", status)
	}
	return failed, gone
}
