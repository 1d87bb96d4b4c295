package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"cloudflash/agent/fault"
)

func TestABusyHostIsNoInternalError(t *testing.T) {
	err := fmt.Errorf("create VM web: %w", tooSlow(fmt.Errorf("start init: %w", context.DeadlineExceeded)))
	var e *fault.Error
	if !errors.As(err, &e) || !errors.Is(err, fault.ErrNotYet) || e.Code != "host_busy" || e.Hint == "" {
		t.Fatalf("%#v", err)
	}
	if want := "create VM web: not ready within 30s: start init: context deadline exceeded"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if other := errors.New("disk on fire"); !errors.Is(tooSlow(other), other) || errors.Is(tooSlow(other), fault.ErrNotYet) {
		t.Error("another error is changed")
	}
}
