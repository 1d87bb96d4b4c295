package systemtest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cloudflash/agent"
)

// Slice is the path of a control file of a VM, or of its cgroup where the file is "".
func (a *Agent) Slice(v agent.VM, file string) string {
	return filepath.Join(a.Parent, "vms", v.ID, file)
}

// ControlFile reads a control file of a VM.
func (a *Agent) ControlFile(v agent.VM, file string) string {
	a.T.Helper()
	b, err := os.ReadFile(a.Slice(v, file))
	if err != nil {
		a.T.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// Write changes a control file of a VM behind the agent's back.
func (a *Agent) Write(v agent.VM, file, text string) {
	a.T.Helper()
	if err := os.WriteFile(a.Slice(v, file), []byte(text), 0); err != nil {
		a.T.Fatal(err)
	}
}

// Number reads a control file of one number.
func (a *Agent) Number(v agent.VM, file string) float64 {
	a.T.Helper()
	return number(a.T, a.ControlFile(v, file))
}

// Counters reads a control file of names and numbers, such as cpu.stat.
func (a *Agent) Counters(v agent.VM, file string) map[string]float64 {
	a.T.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(a.ControlFile(v, file)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[key] = number(a.T, value)
	}
	return all
}

// Stalled reads the total of a kind of pressure, in seconds.
func (a *Agent) Stalled(v agent.VM, file, kind string) float64 {
	a.T.Helper()
	text := a.ControlFile(v, file)
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == kind {
			return number(a.T, strings.TrimPrefix(f[4], "total=")) / 1e6
		}
	}
	a.T.Fatalf("no %q in %s: %s", kind, file, text)
	return 0
}

func number(t testing.TB, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
