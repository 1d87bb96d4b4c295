package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cloudflash/agent/fault"
	"cloudflash/agent/pages"
)

// A VM's name is its hostname (RFC 1123 label); a cloudlet's may also hold dots,
// underscores and capitals.
var (
	vmName       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	cloudletName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)
)

// commandWords are no names of VMs: they stand where one may.
var commandWords = []string{"all", "idle", "cpus", "memory", "storage", "bandwidth", "rbps", "wbps", "riops", "wiops"}

func checkVMName(name string) error {
	var f fault.List
	if !vmName.MatchString(name) {
		f.Add("/name", nil, nil, "must be 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit, not %s", fault.Quote(name))
	}
	if slices.Contains(commandWords, name) {
		f.Add("/name", nil, nil, "must not be %s, which is a word of autoscale set", fault.Quote(name))
	}
	if name == pages.OwnerHost || name == pages.OwnerDeleted {
		f.Add("/name", nil, nil, "must not be %s, which names an owner of memory that is no VM", fault.Quote(name))
	}
	return f.Err("invalid_name")
}

// checkImage accepts host or what is at an absolute, clean path.
func checkImage(image string) error {
	if image == "host" {
		return nil
	}
	var f fault.List
	if !filepath.IsAbs(image) || filepath.Clean(image) != image || len(image) >= 4096 {
		f.Add("/image", nil, nil, "must be host, or the absolute path of a directory or a tar archive, not %s", fault.Quote(image))
	} else if info, err := os.Stat(image); err != nil {
		f.Add("/image", nil, nil, "cannot be used: %v", err)
	} else if !info.IsDir() && !info.Mode().IsRegular() {
		f.Add("/image", nil, nil, "must be a directory or a tar archive, %s is neither", fault.Quote(image))
	}
	return f.Err("invalid_image")
}

func checkLabels(labels map[string]string) error {
	var f fault.List
	if len(labels) > 64 {
		f.Add("/labels", 0, 64, "has %d entries, at most 64 are kept", len(labels))
	}
	for k, v := range labels {
		if !cloudletName.MatchString(k) || len(v) > 256 || strings.ContainsFunc(v, isControl) {
			f.Add("/labels", nil, nil, "%s: a key is a name of at most 63 characters, a value at most 256 printable bytes", fault.Quote(k))
		}
	}
	return f.Err("invalid_label")
}

// The most of a command line and its environment that fits one message to the
// init of a VM with room to spare.
const (
	maxArgs     = 1024
	maxArgBytes = 96 << 10
)

func (c CloudletSubmit) check() error {
	var f fault.List
	if c.Name != "" && !cloudletName.MatchString(c.Name) {
		f.Add("/name", nil, nil, "must be 1 to 63 letters, digits, dots, underscores and hyphens, not %s", fault.Quote(c.Name))
	}
	fault.Within(&f, "/sla", c.SLA, SLALow, SLAHigh)
	fault.Within(&f, "/deadline_seconds", c.DeadlineSeconds, 0, 10*365*86400)
	fault.Within(&f, "/duration_seconds", c.DurationSeconds, 0, 365*86400)
	if c.OnDeadline != OnDeadlineKill && c.OnDeadline != OnDeadlineContinue {
		f.Add("/on_deadline", nil, nil, "must be kill or continue, not %s", fault.Quote(c.OnDeadline))
	}
	if c.WorkDir != "" && (!filepath.IsAbs(c.WorkDir) || strings.ContainsRune(c.WorkDir, 0) || len(c.WorkDir) > 4095) {
		f.Add("/workdir", nil, nil, "must be an absolute path of at most 4095 bytes, not %s", fault.Quote(c.WorkDir))
	}
	c.checkCommand(&f)
	checkRequest(c.Request, &f)
	return f.Err("invalid_cloudlet")
}

func (c CloudletSubmit) checkCommand(f *fault.List) {
	size := 0
	for i, a := range c.Argv {
		size += len(a) + 1
		if strings.ContainsRune(a, 0) {
			f.Add(fmt.Sprintf("/argv/%d", i), nil, nil, "holds a NUL byte")
		}
	}
	if len(c.Argv) > 0 && c.Argv[0] == "" {
		f.Add("/argv/0", nil, nil, "must name a command")
	}
	for k, v := range c.Env {
		size += len(k) + len(v) + 2
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			f.Add("/env", nil, nil, "%s: a name has no = or NUL and is not empty, a value has no NUL", fault.Quote(k))
		}
	}
	if len(c.Argv)+len(c.Env) > maxArgs || size > maxArgBytes {
		f.Add("/argv", nil, maxArgBytes, "and env hold %d entries and %d bytes, at most %d and %d are accepted", len(c.Argv)+len(c.Env), size, maxArgs, maxArgBytes)
	}
}

func checkRequest(r Request, f *fault.List) {
	fault.Within(f, "/request/cpus", r.CPUs, 0, 1024)
	fault.Within(f, "/request/memory_bytes", r.MemoryBytes, 0, 256*tib)
	fault.Within(f, "/request/storage_bytes", r.StorageBytes, 0, 1024*tib)
	fault.Within(f, "/request/bandwidth_bps", r.BandwidthBPS, 0, 1e12)
	fault.Within(f, "/request/gpus", r.GPUs, 0, 64)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }
