package systemtest

import (
	"testing"
	"time"
)

// Until waits for something that has to be within two minutes: machines are emulated, and busy.
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	Within(t, 2*time.Minute, what, done)
}

// Within is Until with a limit of its own.
func Within(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
