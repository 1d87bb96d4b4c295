package cloudlet

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"cloudflash/agent/clock"
	"cloudflash/agent/state"

	"golang.org/x/sys/unix"
)

// End is how a cloudlet's process ended.
type End struct {
	Code   int
	Signal syscall.Signal // 0 when it exited
	OOM    bool
	Left   int    // processes that it left running
	Reason string // set when there is more to say than the code
}

// SignalName is such as SIGKILL.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "SIG" + strconv.Itoa(int(sig)) // the real-time ones have no name
}

// SignalNumber is the signal that SignalName gives that name, 0 for none.
func SignalNumber(name string) syscall.Signal {
	if sig := unix.SignalNum(name); sig != 0 {
		return sig
	}
	digits, _ := strings.CutPrefix(name, "SIG")
	if n, err := strconv.Atoi(digits); err == nil && n >= 1 && n <= 64 && SignalName(syscall.Signal(n)) == name {
		return syscall.Signal(n)
	}
	return 0
}

// Conclude works out the final state. What the agent did on purpose comes
// first, then the OOM killer, then the command's own code.
func Conclude(r *state.Cloudlet, end End, use state.Usage, at clock.Moment) {
	if r.Stop == state.StopOOM {
		use.OOMKills = max(use.OOMKills, 1)
	}
	r.FinishedAt, r.PID, r.Usage = new(at.Day.UTC()), 0, use
	r.LeftRunning = end.Left
	r.OverrunSeconds = Overrun(r, at)
	TellTimes(r, at)
	r.Signal, r.ExitCode = "", nil
	if end.Signal != 0 {
		r.Signal = SignalName(end.Signal)
	} else {
		r.ExitCode = &end.Code
	}
	switch {
	case r.Stop == state.StopCancel:
		r.State, r.Reason = state.CloudletCancelled, "cancelled"
	case r.Stop == state.StopDeadline:
		r.State, r.Reason = state.CloudletDeadlineExceeded, "killed at its deadline"
	case r.Stop == state.StopDelete:
		r.State, r.Reason = state.CloudletCancelled, state.ReasonVMDeleted
	case r.Stop == state.StopOOM, end.OOM && (end.Signal != 0 || end.Code != 0):
		r.State, r.Reason = state.CloudletFailed, "oom"
	case end.Signal != 0:
		r.State, r.Reason = state.CloudletFailed, "killed by "+r.Signal
	case end.Code != 0 || end.Reason != "":
		r.State, r.Reason = state.CloudletFailed, end.Reason
		if end.Reason == "" {
			r.Reason = fmt.Sprintf("exit code %d", end.Code)
		}
	case r.OverrunSeconds > 0:
		r.State, r.Reason = state.CloudletDeadlineExceeded, "finished after its deadline"
	default:
		r.State, r.Reason = state.CloudletSucceeded, ""
	}
}

// Overrun is how many seconds after its deadline a cloudlet ended, or 0.
func Overrun(r *state.Cloudlet, at clock.Moment) float64 {
	if r.DeadlineAt == nil {
		return 0
	}
	return max((at.Boot - r.DeadlineBoot).Seconds(), 0)
}

// TellTimes makes the times that are shown of a cloudlet those of the clock by which m is
// shown, so that what lies between them is true.
func TellTimes(r *state.Cloudlet, m clock.Moment) {
	if r.SubmittedBoot != 0 || r.Boot != "" {
		r.CreatedAt = m.DayOf(r.SubmittedBoot, r.CreatedAt)
	}
	if r.StartedAt != nil {
		r.StartedAt = new(m.DayOf(r.StartedBoot, *r.StartedAt))
	}
	if r.DeadlineAt != nil {
		r.DeadlineAt = new(m.DayOf(r.DeadlineBoot, *r.DeadlineAt))
	}
}

// Started tells of a cloudlet that has begun to run.
func Started(r *state.Cloudlet) state.Event {
	return state.Event{Level: state.LevelInfo, Kind: "cloudlet.started", VM: r.VM, Cloudlet: r.ID,
		Message: fmt.Sprintf("cloudlet %s started in VM %s", r.Name, r.VMName)}
}

// LeftText says what became of processes that a command has left running.
func LeftText(n int) string {
	if n == 1 {
		return "a process that it left running was killed"
	}
	return fmt.Sprintf("%d processes that it left running were killed", n)
}

// Finished tells of a cloudlet that has ended.
func Finished(r *state.Cloudlet) state.Event {
	e := state.Event{Level: state.LevelInfo, Kind: "cloudlet.finished", VM: r.VM, Cloudlet: r.ID,
		Message: fmt.Sprintf("cloudlet %s %s", r.Name, r.State),
		Data: map[string]any{"state": r.State, "exit_code": r.ExitCode, "signal": r.Signal, "cpu_seconds": r.Usage.CPUSeconds,
			"memory_peak_bytes": r.Usage.MemoryPeakBytes, "overrun_seconds": r.OverrunSeconds}}
	if r.Reason != "" {
		e.Message += ": " + r.Reason
	}
	if r.LeftRunning > 0 {
		e.Data["left_running"] = r.LeftRunning
		e.Message += "; " + LeftText(r.LeftRunning)
	}
	if r.State != state.CloudletSucceeded && r.State != state.CloudletCancelled {
		e.Level = state.LevelWarn
	}
	return e
}

// Orphaned is the last state of a cloudlet that its VM takes with it.
func Orphaned(c *state.Cloudlet, vmName string, at clock.Moment) state.Cloudlet {
	rec := *c
	rec.State, rec.FinishedAt, rec.Reason, rec.PID = state.CloudletCancelled, &at.Day, state.ReasonVMDeleted, 0
	rec.VMName = vmName
	TellTimes(&rec, at)
	return rec
}

// Lost is the last state of a cloudlet whose result nobody knows.
func Lost(c *state.Cloudlet, use state.Usage, at clock.Moment) state.Cloudlet {
	rec := *c
	rec.State, rec.FinishedAt, rec.PID, rec.Usage = state.CloudletLost, &at.Day, 0, use
	rec.Reason = "its VM went down with it (host restart, or the VM's init was killed)"
	TellTimes(&rec, at)
	return rec
}

// Unstarted is the last state of a cloudlet that was told to stop while it was queued. Waits
// is what it has waited for.
func Unstarted(c *state.Cloudlet, stop, waits string, at clock.Moment) state.Cloudlet {
	rec := *c
	rec.FinishedAt, rec.State, rec.Reason = &at.Day, state.CloudletCancelled, "cancelled while queued"
	if stop == state.StopDeadline {
		rec.State, rec.Reason = state.CloudletDeadlineExceeded, "not started before its deadline: "+waits
		rec.OverrunSeconds = Overrun(&rec, at)
	}
	TellTimes(&rec, at)
	return rec
}
