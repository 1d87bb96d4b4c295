package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKernelQuotaStopsAtTheLimit(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		a, b := assign(t, s, "a", 0, 16*mib), assign(t, s, "b", 1, 16*mib)
		n, err := fill(t, filepath.Join(a, "f"), 32*mib)
		if !full(err) {
			t.Fatalf("%d bytes written: %v", n, err)
		}
		near(t, "written", n, 16*mib)
		u := usage(t, s, 0)
		near(t, "use", u.Bytes, 16*mib)
		if u.LimitBytes != 16*mib || u.LimitInodes != 8192 {
			t.Errorf("limits are %+v", u)
		}
		mustFill(t, filepath.Join(b, "f"), 15*mib)
		if _, err := fill(t, filepath.Join(a, "g"), mib); !full(err) {
			t.Errorf("a full project takes more: %v", err)
		}
	})
}

func TestKernelLimitMovesLive(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		f := filepath.Join(assign(t, s, "a", 0, 4*mib), "f")
		n, _ := fill(t, f, 8*mib)
		near(t, "written", n, 4*mib)
		if err := s.SetLimit(Project(0), 12*mib); err != nil {
			t.Fatal(err)
		}
		m, err := fill(t, f, 16*mib)
		if !full(err) {
			t.Error(err)
		}
		near(t, "written after growing", n+m, 12*mib)
		var below *BelowUseError
		err = s.SetLimit(Project(0), 8*mib)
		if !errors.As(err, &below) || below.Limit != 8*mib || below.UsedBytes < 10*mib {
			t.Fatalf("below use: %v", err)
		}
		if u := usage(t, s, 0); u.LimitBytes != 12*mib {
			t.Errorf("a refused limit has changed it to %d", u.LimitBytes)
		}
		if err := os.Truncate(f, 4*mib); err != nil {
			t.Fatal(err)
		}
		if err := s.SetLimit(Project(0), 8*mib); err != nil {
			t.Fatal(err)
		}
		m, err = fill(t, f, 16*mib)
		if !full(err) {
			t.Error(err)
		}
		near(t, "written after shrinking", 4*mib+m, 8*mib)
		if err := s.SetLimit(Project(0), 8*mib); err != nil {
			t.Errorf("the same again: %v", err)
		}
	})
}

func TestKernelAssignBelowUse(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		dir := assign(t, s, "a", 0, 8*mib)
		mustFill(t, filepath.Join(dir, "f"), 6*mib)
		if err := s.Assign("a", Project(0), 4*mib); !errors.Is(err, ErrBelowUse) {
			t.Errorf("assign: %v", err)
		}
		if err := s.SetLimit(Project(0), 4*mib); err != nil || usage(t, s, 0).LimitBytes != 4*mib {
			t.Errorf("the same again: %v, %+v", err, usage(t, s, 0))
		}
		if _, err := fill(t, filepath.Join(dir, "g"), mib); !full(err) {
			t.Errorf("it still grows: %v", err)
		}
	})
}

func TestKernelLentIsTakenBack(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		dir := assign(t, s, "a", 0, 4*mib)
		if _, err := fill(t, filepath.Join(dir, "f"), 8*mib); !full(err) {
			t.Fatal(err)
		}
		refused := errors.New("refused")
		err := s.Lend(Project(0), 4*mib, func() error {
			mustFill(t, filepath.Join(dir, "g"), lentBytes/2)
			return refused
		})
		if !errors.Is(err, refused) {
			t.Errorf("the error is %v", err)
		}
		if u := usage(t, s, 0); u.LimitBytes != 4*mib || u.LimitInodes != 8192 || u.Bytes <= 4*mib {
			t.Errorf("afterwards there are %+v", u)
		}
		if _, err := fill(t, filepath.Join(dir, "h"), mib); !full(err) {
			t.Errorf("a full project takes more: %v", err)
		}
		if err := s.Lend(Project(0), 4*mib, func() error { return os.Mkdir(filepath.Join(dir, "more"), 0o700) }); err != nil {
			t.Errorf("beyond its limit it has nothing lent: %v", err)
		}
	})
}

func TestSystemLimitsThatAreNoneAreRefused(t *testing.T) {
	s := openPool(t, Config{})
	for _, limit := range []int64{-1, 0, blockSize - 1} {
		if err := s.SetLimit(Project(0), limit); err == nil {
			t.Errorf("limit %d was taken", limit)
		}
	}
	for _, project := range []uint32{0, Project(0) - 1, Project(Slots)} {
		if err := errors.Join(s.Assign("a", project, mib)); err == nil {
			t.Errorf("project %d was taken", project)
		}
		if err := s.Release(t.Context(), project); err == nil {
			t.Errorf("project %d was released", project)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "/etc", "../x"} {
		if err := s.Assign(name, Project(0), mib); err == nil {
			t.Errorf("directory %q was taken", name)
		}
	}
	if err := s.SetLimit(Project(0), 10*mib+5); err != nil || usage(t, s, 0).LimitBytes != 10*mib {
		t.Errorf("a limit between blocks: %v, %+v", err, usage(t, s, 0))
	}
}

func TestKernelInodesEnd(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		dir := assign(t, s, "a", 0, 64*mib)
		if u := usage(t, s, 0); u.LimitInodes != 8192 {
			t.Errorf("limits are %+v", u)
		}

		// So many files would take a while: the kernel ends fewer in the same way.
		const most = 400
		if err := s.set(Project(0), 64*mib, most); err != nil {
			t.Fatal(err)
		}
		var made int
		err := unprivileged(func() error {
			for ; made < 2*most; made++ {
				if err := touch(filepath.Join(dir, name(made))); err != nil {
					return err
				}
			}
			return nil
		})
		if !full(err) || made > most || made < most-10 {
			t.Errorf("%d files made: %v", made, err)
		}
		other := assign(t, s, "b", 1, 64*mib)
		if err := touch(filepath.Join(other, "f")); err != nil {
			t.Errorf("the neighbour: %v", err)
		}
	})
}

func TestKernelReleaseLeavesNothing(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		for range 2 {
			mustFill(t, filepath.Join(assign(t, s, "a", 7, 32*mib), "f"), 2*mib)
			if ids := projects(t, s); !slices.Equal(ids, []uint32{Project(7)}) {
				t.Errorf("projects %v", ids)
			}
			remove(t, s, "a", 7)
			if ids := projects(t, s); len(ids) != 0 {
				t.Errorf("projects %v are left", ids)
			}
		}
		if err := s.Release(t.Context(), Project(7)); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

// A file that is deleted but open counts until it is closed.
func TestKernelReleaseOfAProjectInUse(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		path := filepath.Join(assign(t, s, "a", 0, 32*mib), "f")
		mustFill(t, path, 2*mib)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // what is in use stays so
		defer cancel()
		var use *InUseError
		if err := s.Release(short, Project(0)); !errors.As(err, &use) || use.Bytes < 2*mib {
			t.Errorf("release: %v", err)
		}
		if u := usage(t, s, 0); u.LimitBytes != 0 || u.LimitInodes != 0 {
			t.Errorf("limits are left: %+v", u)
		}
		assign(t, s, "b", 1, 32*mib)
		assign(t, s, "c", 2, 32*mib)
		if err := s.set(probeID, mib, 0); err != nil { // left by a check that was killed
			t.Fatal(err)
		}
		short, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		busy, err := s.Sweep(short, func(id uint32) bool { return id == Project(1) })
		if err != nil || !slices.Equal(busy, []uint32{Project(0), Project(2)}) { // an open file, and a directory
			t.Errorf("sweep: %v, %v", busy, err)
		}
		if u := usage(t, s, 2); u.LimitBytes != 0 || u.LimitInodes != 0 || u.Inodes != 1 {
			t.Errorf("project 2 after the sweep: %+v", u)
		}
		if u := usage(t, s, 1); u.LimitBytes != 32*mib {
			t.Errorf("what is kept was swept: %+v", u)
		}
		f.Close()
		if err := os.RemoveAll(filepath.Join(s.Dir(), "c")); err != nil {
			t.Fatal(err)
		}
		busy, err = s.Sweep(t.Context(), func(id uint32) bool { return id == Project(1) })
		if err != nil || len(busy) != 0 || !slices.Equal(projects(t, s), []uint32{Project(1)}) {
			t.Errorf("sweep: %v, %v, left %v", busy, err, projects(t, s))
		}
	})
}

// Files of a VM from before it had a quota, some of them traps.
func TestKernelAssignTakesATreeAndNothingElse(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		outside := filepath.Join(s.Dir(), "outside")
		dir := filepath.Join(s.Dir(), "a")
		deep := filepath.Join(dir, "x", "y", "z")
		if err := errors.Join(os.MkdirAll(deep, 0o755), os.Mkdir(outside, 0o755)); err != nil {
			t.Fatal(err)
		}
		mustFill(t, filepath.Join(outside, "f"), mib)
		mustFill(t, filepath.Join(deep, "f"), 4*mib)
		for link, to := range map[string]string{"dir": outside, "file": filepath.Join(outside, "f"), "up": "../..", "none": "nowhere"} {
			if err := os.Symlink(to, filepath.Join(dir, "x", link)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644), unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))); err != nil {
			t.Fatal(err)
		}
		// Half done, by a call that was killed.
		if err := tagPath(filepath.Join(dir, "x"), Project(0)); err != nil {
			t.Fatal(err)
		}
		assign(t, s, "a", 0, 8*mib)
		assign(t, s, "a", 0, 8*mib)
		for path, want := range map[string]uint32{dir: Project(0), filepath.Join(dir, "x"): Project(0), deep: Project(0), filepath.Join(deep, "f"): Project(0),
			outside: 0, filepath.Join(outside, "f"): 0, s.Dir(): 0} {
			if have := projectOf(t, path); have != want {
				t.Errorf("%s is in project %d, want %d", path, have, want)
			}
		}
		near(t, "use", 5*mib-usage(t, s, 0).Bytes, mib)
		n, err := fill(t, filepath.Join(deep, "g"), 16*mib)
		if !full(err) {
			t.Errorf("%d written: %v", n, err)
		}
		near(t, "written", 4*mib+n, 8*mib)
		if err := os.Symlink(outside, filepath.Join(s.Dir(), "link")); err != nil {
			t.Fatal(err)
		}
		if err := s.Assign("link", Project(1), mib); err == nil || projectOf(t, outside) != 0 {
			t.Errorf("a link was followed: %v", err)
		}
	})
}

func TestKernelAssignOfATreeAboveItsLimit(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		dir := filepath.Join(s.Dir(), "a")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		mustFill(t, filepath.Join(dir, "f"), 4*mib)
		if err := s.Assign("a", Project(0), 2*mib); !errors.Is(err, ErrBelowUse) {
			t.Errorf("assign: %v", err)
		}
		if _, err := fill(t, filepath.Join(dir, "g"), mib); !full(err) {
			t.Errorf("it still grows: %v", err)
		}
		if err := s.Assign("a", Project(0), 2*mib); err != nil {
			t.Errorf("repeated as on every start: %v", err)
		}
	})
}

// A parent with a project of its own does not win over the VM's.
func TestKernelParentsProjectIsNotInherited(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		if err := tag(int(s.dir.Fd()), 4711, true); err != nil {
			t.Fatal(err)
		}
		dir := assign(t, s, "a", 0, 32*mib)
		mustFill(t, filepath.Join(dir, "f"), mib)
		for _, path := range []string{dir, filepath.Join(dir, "f")} {
			if have := projectOf(t, path); have != Project(0) {
				t.Errorf("%s is in project %d", path, have)
			}
		}
	})
}

func projectOf(tb testing.TB, path string) uint32 {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	id, _, err := project(int(f.Fd()))
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

func tagPath(path string, id uint32) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return tag(int(f.Fd()), id, true)
}
