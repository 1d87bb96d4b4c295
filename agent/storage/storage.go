package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Backends of Config.
const (
	Auto   = "auto"   // the pool where there is one, else native where that works, else a new pool
	Native = "native" // project quota of the file system that the state directory is on
	Pool   = "pool"   // one XFS file for all VMs
)

// PoolFile is the name of the pool in the state directory.
const PoolFile = "pool.xfs"

// Config says where the VMs' directories are and how much may be promised.
type Config struct {
	StateDir   string  // such as /var/lib/cloudflash
	Backend    string  // "" is Auto
	Overcommit float64 // how many times the pool's size the limits may add up to; 0 is 1
	Reserve    int64   // bytes of the disk that the pool leaves alone; 0 is a twentieth of it, at most 8 GiB
}

// Storage is the file system of the VMs' directories. It is safe for concurrent
// use. Nothing that it has set up ends with it.
type Storage struct {
	quotas
	pool *pool // nil for native

	mu     sync.Mutex
	limits map[uint32]int64 // of projects, as the kernel has them
	trim   sync.Mutex
}

// Open finds or makes the file system at <StateDir>/vms and checks that it holds
// a project to its limit. It may be repeated at any time, after any crash.
// ErrUnsupported says what is missing here, ErrNoRoom that the disk is too full
// for a new pool.
func Open(ctx context.Context, cfg Config) (*Storage, error) {
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open storage in %s: %w", cfg.StateDir, err)
	}
	return s, nil
}

func open(ctx context.Context, cfg Config) (*Storage, error) {
	dir := filepath.Join(cfg.StateDir, "vms")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	p, err := newPool(cfg)
	if err != nil {
		return nil, err
	}
	usePool := cfg.Backend == Pool
	switch cfg.Backend {
	case Pool:
	case Native, Auto, "":
		exists, err := p.exists()
		if err != nil {
			return nil, err
		}
		if exists && cfg.Backend == Native {
			return nil, fmt.Errorf("%s exists: the VMs are in the pool; remove it once they are deleted", p.file)
		}
		usePool = exists
	default:
		return nil, fmt.Errorf("unknown backend %q: it is auto, native or pool", cfg.Backend)
	}
	if !usePool {
		s, err := load(dir, nil)
		if err == nil || cfg.Backend == Native || !errors.Is(err, ErrUnsupported) {
			return s, err
		}
	}
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	return load(dir, p)
}

// load opens the VMs' directory, checks its quota and reads the limits.
func load(dir string, p *pool) (*Storage, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	s := &Storage{quotas: quotas{os.NewFile(uintptr(fd), dir)}, pool: p, limits: map[uint32]int64{}}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Storage) load() error {
	if err := s.check(); err != nil {
		return err
	}
	if s.pool != nil {
		if err := s.pool.resume(s.dir); err != nil {
			return err
		}
	}
	return s.each(Project(0), Project(Slots-1), func(project uint32, u Usage) error {
		if u.LimitBytes > 0 {
			s.limits[project] = u.LimitBytes
		}
		return nil
	})
}

// Close closes what is open here. VMs, mounts and limits stay.
func (s *Storage) Close() error { return s.dir.Close() }

// Unmount closes the storage and unmounts the pool, whose loop device goes with
// the mount. The file stays. It is for uninstalling; with VMs it is EBUSY.
func (s *Storage) Unmount() error {
	dir := s.Dir()
	if err := s.Close(); err != nil || s.pool == nil {
		return err
	}
	if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// Dir is where the VMs' directories are.
func (s *Storage) Dir() string { return s.dir.Name() }

// Backend is Native or Pool.
func (s *Storage) Backend() string {
	if s.pool != nil {
		return Pool
	}
	return Native
}
