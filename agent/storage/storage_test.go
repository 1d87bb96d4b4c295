package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The kernel encodes sizes in ioctl numbers, and copies as much.
func TestStructuresAreAsLargeAsTheKernels(t *testing.T) {
	for name, tt := range map[string]struct{ have, want uintptr }{
		"fsxattr":         {unsafe.Sizeof(fsxattr{}), fsIocGetXattr >> 16 & 0x3fff},
		"fstrim_range":    {unsafe.Sizeof(trimRange{}), fsIocTrim >> 16 & 0x3fff},
		"xfs_fsop_geom":   {unsafe.Sizeof(geometry{}), xfsIocGeometry >> 16 & 0x3fff},
		"xfs_growfs_data": {unsafe.Sizeof(growData{}), xfsIocGrow >> 16 & 0x3fff},
		"if_dqblk":        {unsafe.Sizeof(dqblk{}), 72},
	} {
		if tt.have != tt.want {
			t.Errorf("%s has %d bytes, want %d", name, tt.have, tt.want)
		}
	}
}

func TestProjectsAreInOurRange(t *testing.T) {
	for project, ok := range map[uint32]bool{0: false, Project(0) - 1: false, Project(0): true, Project(Slots - 1): true, Project(Slots): false} {
		if err := ours(project); (err == nil) != ok {
			t.Errorf("%d: %v", project, err)
		}
	}
}

func TestGroupSize(t *testing.T) {
	for disk, want := range map[int64]int64{
		0: minGroup, 10 * gib: minGroup, 32 * gib: 512 * mib, 100 * gib: gib, 1 << 40: 16 * gib, 1 << 50: maxGroup,
	} {
		if have := groupSize(disk); have != want {
			t.Errorf("disk of %d: %d, want %d", disk, have, want)
		}
	}
}

func TestWhatFitsIsWhatIsNeeded(t *testing.T) {
	p := &pool{overcommit: 1}
	for _, size := range []int64{0, 100 * mib, 512 * mib, 10 * gib, 1 << 40, 1 << 50} {
		if sum := fits(size); sum < 0 || sum > 0 && p.needed(sum) > size {
			t.Errorf("%d fit into %d, but need %d", sum, size, p.needed(sum))
		}
	}
	twice := &pool{overcommit: 2}
	if a, b := p.needed(10*gib), twice.needed(20*gib); a != b {
		t.Errorf("overcommit of 2 needs %d, not %d", b, a)
	}
}

func TestInodeLimit(t *testing.T) {
	for bytes, want := range map[int64]int64{0: 8192, 64 * mib: 8192, 128 * mib: 8192, 10 * gib: 655360} {
		if have := inodeLimit(bytes); have != want {
			t.Errorf("%d bytes: %d inodes, want %d", bytes, have, want)
		}
	}
}

func TestParseDevice(t *testing.T) {
	tests := map[string]struct {
		in   string
		want Device
		fail bool
	}{
		"a disk":                {in: "8:16\n", want: Device{Major: 8, Minor: 16}},
		"the largest":           {in: "4095:1048575", want: Device{Major: 4095, Minor: 1048575}},
		"nothing":               {in: "", fail: true},
		"no minor":              {in: "8:", fail: true},
		"no colon":              {in: "816", fail: true},
		"a sign":                {in: "+8:1", fail: true},
		"a minor too large":     {in: "8:1048576", fail: true},
		"something after it":    {in: "8:16 x", fail: true},
		"something on line two": {in: "8:16\n8", fail: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			have, err := parseDevice(tt.in)
			if (err != nil) != tt.fail {
				t.Fatalf("err = %v, want failure %v", err, tt.fail)
			}
			if err == nil && have != tt.want {
				t.Errorf("have %+v, want %+v", have, tt.want)
			}
		})
	}
}

func FuzzParseDevice(f *testing.F) {
	for _, s := range []string{"8:16\n", "", ":", "4096:0", "0:0", "1:1:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDevice(s)
		if err != nil {
			return
		}
		again, err := parseDevice(fmt.Sprintf("%d:%d\n", d.Major, d.Minor))
		if err != nil || again != d {
			t.Errorf("%q became %+v, then %+v, %v", s, d, again, err)
		}
	})
}

func TestWholeDevice(t *testing.T) {
	root := t.TempDir()
	sys := filepath.Join(root, "dev/block")
	for dir, files := range map[string]map[string]string{
		"devices/vda":          {"dev": "254:0\n"},
		"devices/vda/vda1":     {"dev": "254:1\n", "partition": "1\n"},
		"devices/virtual/dm-0": {"dev": "253:0\n", "slaves/vda": ""},
	} {
		for file, text := range files {
			path := filepath.Join(root, dir, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.MkdirAll(sys, 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"254:0": "../../devices/vda", "254:1": "../../devices/vda/vda1", "253:0": "../../devices/virtual/dm-0"} {
		if err := os.Symlink(to, filepath.Join(sys, link)); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		major, minor uint32
		want         Device
		fail         bool
	}{
		"a disk is itself":             {major: 254, want: Device{254, 0, "vda"}},
		"a partition becomes its disk": {major: 254, minor: 1, want: Device{254, 0, "vda"}},
		"a stacked device is itself":   {major: 253, want: Device{253, 0, "dm-0"}},
		"an unknown one is refused":    {major: 9, minor: 9, fail: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			have, err := wholeDevice(sys, tt.major, tt.minor)
			if (err != nil) != tt.fail {
				t.Fatalf("err = %v, want failure %v", err, tt.fail)
			}
			if diff := cmp.Diff(tt.want, have); err == nil && diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDeviceOfAFileSystemWithoutOneSaysSo(t *testing.T) {
	_, err := DeviceOf("/proc/self")
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "/proc/self") {
		t.Error(err)
	}
	if _, err := DeviceOf("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestErrorsAreFoundAndSayTheFigures(t *testing.T) {
	for _, tt := range []struct {
		err  error
		is   error
		says string
	}{
		{&UnsupportedError{Feature: "a pool", Needs: "xfsprogs", Err: unix.ENODEV}, ErrUnsupported, "a pool is not supported here: needs xfsprogs: no such device"},
		{&UnsupportedError{Feature: "a pool", Needs: "xfsprogs"}, ErrUnsupported, "a pool is not supported here: needs xfsprogs"},
		{&RoomError{What: "grow", Need: 2, Have: 1}, ErrNoRoom, "grow: needs 2 bytes of disk, there are 1: free disk space, or shrink or delete VMs"},
		{&BelowUseError{Project: 7, Limit: 1, Inodes: 2, UsedBytes: 3, UsedInodes: 4}, ErrBelowUse, "limit project 7 to 1 bytes and 2 inodes: 3 bytes and 4 inodes are in use"},
		{&InUseError{Project: 7, Bytes: 3, Inodes: 4}, ErrInUse, "project 7 still has 3 bytes in 4 inodes"},
	} {
		if !errors.Is(tt.err, tt.is) || tt.err.Error() != tt.says {
			t.Errorf("%v: is %v: %v", tt.err, tt.is, errors.Is(tt.err, tt.is))
		}
	}
	if !errors.Is(&UnsupportedError{Err: unix.ENODEV}, unix.ENODEV) {
		t.Error("the cause is lost")
	}
}

func TestOpenRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, cfg := range map[string]Config{
		"backend":    {Backend: "zfs"},
		"overcommit": {Overcommit: 0.5},
		"reserve":    {Reserve: -1},
	} {
		cfg.StateDir = t.TempDir()
		if _, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Entries from before there was a pool are never hidden.
func TestPoolRefusesToHideDirectories(t *testing.T) {
	dir := t.TempDir()
	p, err := newPool(Config{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(p.dir, "vm-1", "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.open(t.Context()); err == nil || !strings.Contains(err.Error(), "vm-1") {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(p.dir, "vm-1", "data")); err != nil {
		t.Error(err)
	}
}
