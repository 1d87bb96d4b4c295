package systemtest

import (
	"testing"
	"time"

	"cloudflash/agent"
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

// Looks waits until the agent has looked at all VMs so many times more: about once a second, seldomer where the machine
// is busy with something else. What it has not done by then, it does not do.
func (a *Agent) Looks(n int) {
	a.T.Helper()
	looked := func() time.Time { return Must[agent.Host](a, "GET", "/api/v1/host", nil).Usage.At }
	last := looked()
	for range n + 1 { // one was under way
		Within(a.T, time.Minute, "the agent looks at its VMs", func() bool {
			at := looked()
			again := at.After(last)
			last = at
			return again
		})
	}
}
