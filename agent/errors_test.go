package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestABusyHostIsNoInternalError(t *testing.T) {
	err := fmt.Errorf("create VM web: %w", tooSlow(fmt.Errorf("start init: %w", context.DeadlineExceeded)))
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrNotYet) || e.Code != "host_busy" || e.Hint == "" {
		t.Fatalf("%#v", err)
	}
	if want := "create VM web: not ready within 30s: start init: context deadline exceeded"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if other := errors.New("disk on fire"); !errors.Is(tooSlow(other), other) || errors.Is(tooSlow(other), ErrNotYet) {
		t.Error("another error is changed")
	}
}
