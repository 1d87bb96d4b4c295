package host

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLimitsAreRaisedAndNeverLowered(t *testing.T) {
	dir := t.TempDir()
	had := map[string]string{
		"fs/file-max":    "1024\n",
		"kernel/pid_max": "4194304\n",
		"kernel/pty/max": "2000000\n",
	}
	for file, text := range had {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	_ = raise(dir) // the limit of open files may be out of reach
	had["fs/file-max"] = "9223372036854775807"
	for file, want := range had {
		if b, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", file, b, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "kernel/threads-max")); err == nil {
		t.Error("what the kernel does not have was made")
	}
}
