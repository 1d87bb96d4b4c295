package agent

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/pages"
)

// vmName is what names of VMs are like: they are hostnames (RFC 1123 label).
var vmName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// commandWords must not be names of VMs: autoscale set takes them where a name may stand.
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
	} else if target, err := os.Readlink(image); err == nil && info.IsDir() {
		f.Add("/image", nil, nil, "must be the directory itself, %s is a link to %s", fault.Quote(image), fault.Quote(target))
	}
	return f.Err("invalid_image")
}

func checkLabels(labels map[string]string) error {
	var f fault.List
	if len(labels) > 64 {
		f.Add("/labels", 0, 64, "has %d entries, at most 64 are kept", len(labels))
	}
	for k, v := range labels {
		if !cloudlet.NameRule.MatchString(k) || len(v) > 256 || strings.ContainsFunc(v, isControl) {
			f.Add("/labels", nil, nil, "%s: a key is a name of at most 63 characters, a value at most 256 printable bytes", fault.Quote(k))
		}
	}
	return f.Err("invalid_label")
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }
