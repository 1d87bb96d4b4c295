package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSystemHostileImage gives VMs images that have links and other traps where
// the init mounts and writes, as directories and as archives.
//
// It takes 20 to 60 s: eleven VMs are made, two of an archive of 40 MB, and a program runs in each.
func TestSystemHostileImage(t *testing.T) {
	f := newFortress(t)
	rise := strings.Repeat("../", 40)
	program := filepath.Join(filepath.Dir(f.StateDir), "program")
	copyProgram(t, "/proc/self/exe", program)
	t.Cleanup(func() { os.Remove(program) })
	for name, trap := range map[string]func(dir string) error{
		"plain":             func(string) error { return nil },
		"absolute links":    f.links(f.victim),
		"relative links":    f.links(rise + strings.TrimPrefix(f.victim, "/")),
		"links into proc":   f.links("/proc/self/root" + f.victim),
		"links to the root": f.links("/"),
		"a link deeper": func(dir string) error {
			return firstError(os.MkdirAll(filepath.Join(dir, "opt"), 0o777), os.Symlink(f.victim, filepath.Join(dir, "opt/cloudflash")),
				os.Mkdir(filepath.Join(dir, "etc"), 0o777), os.Symlink(f.victim+"/resolv.conf", filepath.Join(dir, "etc/resolv.conf")))
		},
		"a link at the end": func(dir string) error {
			bin := filepath.Join(dir, "opt/cloudflash/bin")
			return firstError(os.MkdirAll(bin, 0o777), os.Symlink(f.victim+"/burn", filepath.Join(bin, "burn")))
		},
		"fifos": func(dir string) error {
			bin := filepath.Join(dir, "opt/cloudflash/bin")
			return firstError(os.MkdirAll(bin, 0o777), unix.Mkfifo(filepath.Join(bin, "burn"), 0o666), os.Mkdir(filepath.Join(dir, "etc"), 0o777),
				unix.Mkfifo(filepath.Join(dir, "etc/resolv.conf"), 0o666), unix.Mkfifo(filepath.Join(dir, "data"), 0o666))
		},
		"files": func(dir string) error {
			var errs []error
			for _, n := range []string{"proc", "sys", "dev", "tmp", "run", "data", "opt"} {
				errs = append(errs, os.WriteFile(filepath.Join(dir, n), nil, 0o666))
			}
			return firstError(errs...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			image, err := os.MkdirTemp(filepath.Dir(f.StateDir), "image")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(image) })
			if err := firstError(os.Chmod(image, 0o755), os.Mkdir(filepath.Join(image, "bin"), 0o755), trap(image)); err != nil {
				t.Fatal(err)
			}
			if err := os.Link(program, filepath.Join(image, "bin/hostile")); err != nil {
				t.Fatal(err)
			}
			before := listing(t, image)
			f.inImage(t, image)
			if after := listing(t, image); after != before {
				t.Errorf("the image was\n%s\nand is\n%s", before, after)
			}
			if name != "absolute links" && name != "fifos" {
				return // as an archive it is the same to the init
			}
			archive := filepath.Join(f.StateDir, "image.tar")
			if out, err := exec.Command("tar", "-C", image, "-cf", archive, ".").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			f.inImage(t, archive)
		})
	}
	f.holds(t)
}

// inImage runs a VM of the image and looks round in it.
func (f *fortress) inImage(t *testing.T, image string) {
	t.Helper()
	f.Out("vm", "create", "trap", "--memory", "128MiB", "--image", image)
	defer f.MustRemove("trap")
	out, errOut, code := f.Run("cloudlet", "run", "--vm", "trap", "--", "/bin/hostile", "hostile", "image")
	if code != 0 || !strings.Contains(out, "held") {
		t.Errorf("%d\n%s\n%s", code, out, errOut)
	}
	f.unharmed(t)
}

// links puts a link to a place wherever the init wants a directory.
func (f *fortress) links(to string) func(dir string) error {
	return func(dir string) error {
		var errs []error
		for _, n := range []string{"proc", "sys", "dev", "tmp", "run", "data", "opt", "etc"} {
			errs = append(errs, os.Symlink(to, filepath.Join(dir, n)))
		}
		return firstError(errs...)
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link, _ := os.Readlink(path)
		_, err = b.WriteString(strings.Join([]string{path, info.Mode().String(), info.ModTime().String(), link}, " ") + "\n")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
