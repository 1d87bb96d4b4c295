package agent

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A VM's name is its hostname (RFC 1123 label); a cloudlet's may also hold dots,
// underscores and capitals.
var (
	vmName       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	cloudletName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)
)

// faults collects what is wrong with a request, so that one answer names it all.
type faults struct{ fields []Field }

// mostFaults are enough to act on: a request may have thousands.
const mostFaults = 20

func (f *faults) add(pointer string, lo, hi any, format string, args ...any) {
	if len(f.fields) == mostFaults {
		return
	}
	f.fields = append(f.fields, Field{Pointer: pointer, Min: lo, Max: hi, Detail: fmt.Sprintf(format, args...)})
}

func (f *faults) err(code string) error {
	if len(f.fields) == 0 {
		return nil
	}
	details := make([]string, len(f.fields))
	for i, fd := range f.fields {
		details[i] = strings.TrimLeft(fd.Pointer, "/?") + " " + fd.Detail
	}
	return &Error{Kind: ErrInvalid, Code: code, Detail: strings.Join(details, "; "), Fields: f.fields}
}

func within[T int | int64 | float64](f *faults, pointer string, v T, r Range[T]) {
	if v != v || v < r.Min || v > r.Max { // v != v: NaN
		f.add(pointer, r.Min, r.Max, "must be %v to %v, not %v", r.Min, r.Max, v)
	}
}

func (r Ranges) check(s Spec) error {
	var f faults
	within(&f, "/cpus", s.CPUs, r.CPUs)
	within(&f, "/memory_bytes", s.MemoryBytes, r.MemoryBytes)
	within(&f, "/storage_bytes", s.StorageBytes, r.StorageBytes)
	within(&f, "/bandwidth_bps", s.BandwidthBPS, r.BandwidthBPS)
	within(&f, "/gpus", s.GPUs, r.GPUs)
	within(&f, "/pids", s.PIDs, r.PIDs)
	io := Range[int64]{0, math.MaxInt64}
	within(&f, "/io/rbps", s.IO.ReadBPS, io)
	within(&f, "/io/wbps", s.IO.WriteBPS, io)
	within(&f, "/io/riops", s.IO.ReadIOPS, io)
	within(&f, "/io/wiops", s.IO.WriteIOPS, io)
	return f.err("out_of_range")
}

// commandWords are no names of VMs: they stand where one may.
var commandWords = []string{"all", "idle", "cpus", "memory", "storage", "bandwidth", "rbps", "wbps", "riops", "wiops"}

func checkVMName(name string) error {
	var f faults
	if !vmName.MatchString(name) {
		f.add("/name", nil, nil, "must be 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit, not %s", quote(name))
	}
	if slices.Contains(commandWords, name) {
		f.add("/name", nil, nil, "must not be %s, which is a word of autoscale set", quote(name))
	}
	if name == OwnerHost || name == OwnerDeleted {
		f.add("/name", nil, nil, "must not be %s, which names an owner of memory that is no VM", quote(name))
	}
	return f.err("invalid_name")
}

// checkImage accepts host or what is at an absolute, clean path.
func checkImage(image string) error {
	if image == "host" {
		return nil
	}
	var f faults
	if !filepath.IsAbs(image) || filepath.Clean(image) != image || len(image) >= 4096 {
		f.add("/image", nil, nil, "must be host, or the absolute path of a directory or a tar archive, not %s", quote(image))
	} else if info, err := os.Stat(image); err != nil {
		f.add("/image", nil, nil, "cannot be used: %v", err)
	} else if !info.IsDir() && !info.Mode().IsRegular() {
		f.add("/image", nil, nil, "must be a directory or a tar archive, %s is neither", quote(image))
	}
	return f.err("invalid_image")
}

func checkLabels(labels map[string]string) error {
	var f faults
	if len(labels) > 64 {
		f.add("/labels", 0, 64, "has %d entries, at most 64 are kept", len(labels))
	}
	for k, v := range labels {
		if !cloudletName.MatchString(k) || len(v) > 256 || strings.ContainsFunc(v, isControl) {
			f.add("/labels", nil, nil, "%s: a key is a name of at most 63 characters, a value at most 256 printable bytes", quote(k))
		}
	}
	return f.err("invalid_label")
}

// The most of a command line and its environment that fits one message to the
// init of a VM with room to spare.
const (
	maxArgs     = 1024
	maxArgBytes = 96 << 10
)

func (c CloudletSubmit) check() error {
	var f faults
	if c.Name != "" && !cloudletName.MatchString(c.Name) {
		f.add("/name", nil, nil, "must be 1 to 63 letters, digits, dots, underscores and hyphens, not %s", quote(c.Name))
	}
	within(&f, "/sla", c.SLA, Range[int]{SLALow, SLAHigh})
	within(&f, "/deadline_seconds", c.DeadlineSeconds, Range[float64]{0, 10 * 365 * 86400})
	within(&f, "/duration_seconds", c.DurationSeconds, Range[float64]{0, 365 * 86400})
	if c.OnDeadline != OnDeadlineKill && c.OnDeadline != OnDeadlineContinue {
		f.add("/on_deadline", nil, nil, "must be kill or continue, not %s", quote(c.OnDeadline))
	}
	if c.WorkDir != "" && (!filepath.IsAbs(c.WorkDir) || strings.ContainsRune(c.WorkDir, 0) || len(c.WorkDir) > 4095) {
		f.add("/workdir", nil, nil, "must be an absolute path of at most 4095 bytes, not %s", quote(c.WorkDir))
	}
	c.checkCommand(&f)
	checkRequest(c.Request, &f)
	return f.err("invalid_cloudlet")
}

func (c CloudletSubmit) checkCommand(f *faults) {
	size := 0
	for i, a := range c.Argv {
		size += len(a) + 1
		if strings.ContainsRune(a, 0) {
			f.add(fmt.Sprintf("/argv/%d", i), nil, nil, "holds a NUL byte")
		}
	}
	if len(c.Argv) > 0 && c.Argv[0] == "" {
		f.add("/argv/0", nil, nil, "must name a command")
	}
	for k, v := range c.Env {
		size += len(k) + len(v) + 2
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			f.add("/env", nil, nil, "%s: a name has no = or NUL and is not empty, a value has no NUL", quote(k))
		}
	}
	if len(c.Argv)+len(c.Env) > maxArgs || size > maxArgBytes {
		f.add("/argv", nil, maxArgBytes, "and env hold %d entries and %d bytes, at most %d and %d are accepted", len(c.Argv)+len(c.Env), size, maxArgs, maxArgBytes)
	}
}

func checkRequest(r Request, f *faults) {
	within(f, "/request/cpus", r.CPUs, Range[float64]{0, 1024})
	within(f, "/request/memory_bytes", r.MemoryBytes, Range[int64]{0, 256 * tib})
	within(f, "/request/storage_bytes", r.StorageBytes, Range[int64]{0, 1024 * tib})
	within(f, "/request/bandwidth_bps", r.BandwidthBPS, Range[int64]{0, 1e12})
	within(f, "/request/gpus", r.GPUs, Range[int]{0, 64})
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// quote shows a value of any length and content on one line.
func quote(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q… (%d bytes)", s[:80], len(s))
	}
	return fmt.Sprintf("%q", s)
}
