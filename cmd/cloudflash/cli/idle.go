package cli

import (
	"fmt"
	"time"

	"cloudflash/agent"
)

// idleWord is how long a VM has been idle and what becomes of it.
func idleWord(v agent.VM) string {
	switch {
	case v.IdleSince == nil:
		return "-"
	case v.Autoscale.Keep:
		return age(*v.IdleSince) + ", kept"
	case v.Autoscale.DeleteAt != nil:
		return age(*v.IdleSince) + ", deleted in " + short(time.Until(*v.Autoscale.DeleteAt))
	}
	return age(*v.IdleSince)
}

// topState is the state of a VM where there is little room.
func topState(v agent.VM) string {
	switch {
	case v.State != agent.VMRunning || v.IdleSince == nil:
		return string(v.State)
	case v.Autoscale.DeleteAt != nil:
		return "del " + short(time.Until(*v.Autoscale.DeleteAt))
	}
	return "idle"
}

// fate is what becomes of a VM when it is idle.
func fate(v agent.VM) string {
	s := v.Autoscale
	switch {
	case s.Keep:
		return "it is kept"
	case s.IdleAfterSeconds <= 0:
		return "idle VMs are not deleted"
	}
	return fmt.Sprintf("deleted after %s without a sign of life and %s of notice", seconds(s.IdleAfterSeconds), seconds(s.IdleNoticeSeconds))
}

// sayFate tells who has made a VM that it may go by itself.
func (a *app) sayFate(v agent.VM) {
	if v.Autoscale.Keep || v.Autoscale.IdleAfterSeconds <= 0 {
		return
	}
	name := clean(v.Name)
	fmt.Fprintf(a.Err, "when idle, VM %s is %s; to keep it: cloudflash vm set %s --keep\n", name, fate(v), name)
}
