package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// controllers are what every slice and scope is given.
var controllers = [...]string{"cpu", "memory", "io", "pids"}

// A Parent is the one cgroup that belongs to the agent: slices live in
// <dir>/vms, the agent itself in <dir>/agent.
type Parent struct{ dir string }

// OpenParent makes the parent if need be and turns its controllers on, from the
// root of the mount down to <dir>/vms. It fails with an UnsupportedError on a
// host whose controllers are not on cgroup v2.
func OpenParent(dir string) (*Parent, error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return nil, fmt.Errorf("cgroup parent %q: must be an absolute, clean path", dir)
	}
	root, err := mountRoot(dir)
	if err != nil {
		return nil, err
	}
	if err := checkControllers(root); err != nil {
		return nil, err
	}
	vms := filepath.Join(dir, "vms")
	for path := root; ; {
		if err := enable(path); err != nil {
			return nil, err
		}
		if path == vms {
			return &Parent{dir}, nil
		}
		rest, _ := filepath.Rel(path, vms)
		path = filepath.Join(path, strings.SplitN(rest, "/", 2)[0])
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
}

// mountRoot finds the root of the cgroup2 mount that dir is or will be in.
func mountRoot(dir string) (string, error) {
	root := ""
	for path := dir; path != "/"; path = filepath.Dir(path) {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil {
			continue // not made yet
		}
		if st.Type != unix.CGROUP2_SUPER_MAGIC {
			break
		}
		root = path
	}
	if root == "" {
		return "", &UnsupportedError{Feature: "a cgroup at " + dir, Needs: "cgroup v2 mounted there (systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2)"}
	}
	return root, nil
}

func checkControllers(root string) error {
	b, err := readFile(root, "cgroup.controllers")
	if err != nil {
		return err
	}
	have := strings.Fields(string(b))
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	if missing != nil {
		return &UnsupportedError{Feature: "the cgroup v2 controllers " + strings.Join(missing, " "),
			Needs: root + " to have them: boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all"}
	}
	return nil
}

// enable turns on for the children of dir what is not on already.
func enable(dir string) error {
	b, err := readFile(dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	on := strings.Fields(string(b))
	want := ""
	for _, c := range controllers {
		if !slices.Contains(on, c) {
			want += " +" + c
		}
	}
	if want == "" {
		return nil
	}
	err = writeFile(dir, "cgroup.subtree_control", want[1:])
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: processes live in %s itself, which must have none", err, dir)
	}
	return err
}

// Dir is the path of the parent.
func (p *Parent) Dir() string { return p.dir }

// Name is the path of the parent from the root of its mount, as the kernel has it
// in /proc/PID/cgroup.
func (p *Parent) Name() string {
	root, err := mountRoot(p.dir)
	if err != nil {
		return p.dir
	}
	return strings.TrimPrefix(p.dir, root)
}

// Enter moves this process into <dir>/agent, so that what it uses is counted
// apart from everything else.
func (p *Parent) Enter() error {
	dir := filepath.Join(p.dir, "agent")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return writeFile(dir, "cgroup.procs", "0")
}

// Slice names the slice of that id. It makes no system call. An id that is not
// a plain name is a mistake of the caller, and panics.
func (p *Parent) Slice(id string) *Slice {
	return &Slice{group{filepath.Join(p.dir, "vms", plain(id))}}
}

// All is the cgroup that the slices are in, which counts for all of them together.
func (p *Parent) All() *Slice { return &Slice{group{filepath.Join(p.dir, "vms")}} }

// Slices lists the ids of the slices that exist.
func (p *Parent) Slices() ([]string, error) { return children(filepath.Join(p.dir, "vms")) }

func plain(name string) string {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00\n") || strings.HasPrefix(name, "cgroup.") {
		panic(fmt.Sprintf("cgroup: %q is not a plain name", name))
	}
	return name
}

func children(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, goneOr(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
