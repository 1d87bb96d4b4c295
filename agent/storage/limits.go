package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blockSize is what limits are rounded down to.
const blockSize = 4096

// inodeLimit is how many files may go with a limit: one for every 16 KiB, as
// ext4 has, but enough for small programs.
func inodeLimit(bytes int64) int64 { return max(bytes/(16<<10), 8192) }

// Assign makes the directory <Dir>/<name>, where it is not there, and puts it
// and all that is or will be in it under a project with a limit in bytes. It may
// be repeated. A tree from before is put under the project whole. Where use is
// beyond the limit, that is ErrBelowUse: the limit holds, and it can only shrink.
func (s *Storage) Assign(name string, project uint32, limit int64) error {
	if name == "" || name == "." || name == ".." || name != filepath.Base(name) {
		return fmt.Errorf("%q is not the name of a directory", name)
	}
	if err := s.assign(name, project, limit); err != nil {
		return fmt.Errorf("assign %s to project %d: %w", name, project, err)
	}
	return nil
}

func (s *Storage) assign(name string, id uint32, limit int64) error {
	beyond := s.SetLimit(id, limit)
	if errors.Is(beyond, ErrBelowUse) {
		if err := s.force(id, limit); err != nil {
			return err
		}
	} else if beyond != nil {
		return beyond
	}

	if err := unix.Mkdirat(int(s.dir.Fd()), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := openFD(int(s.dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	have, inherits, err := project(fd)
	if err != nil || have == id && inherits {
		return cmp.Or(err, beyond)
	}
	if err := tagTree(dir, id); err != nil {
		return err
	}
	u, err := s.get(id)
	if err == nil && (u.Bytes > u.LimitBytes || u.Inodes > u.LimitInodes) {
		err = below(id, u, u.LimitBytes)
	}
	return err
}

// SetLimit changes the limit in bytes of a project, up or down, at once. The
// limit on inodes goes with it. ErrBelowUse and ErrNoRoom change nothing.
func (s *Storage) SetLimit(project uint32, limit int64) error {
	if err := ours(project); err != nil {
		return err
	}
	if limit < blockSize {
		return fmt.Errorf("limit of project %d: %d bytes are less than a block of %d", project, limit, blockSize)
	}
	limit = limit / blockSize * blockSize
	inodes := inodeLimit(limit)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.get(project)
	if err != nil {
		return err
	}
	if old.LimitBytes == limit && old.LimitInodes == inodes { // even where use is beyond it
		s.limits[project] = limit
		return nil
	}
	if old.Bytes > limit || old.Inodes > inodes {
		return below(project, old, limit)
	}
	if err := s.promise(project, limit); err != nil {
		return err
	}
	if err := s.set(project, limit, inodes); err != nil {
		return err
	}
	now, err := s.get(project)
	if err != nil {
		return err
	}
	if now.Bytes > limit || now.Inodes > inodes { // written between the two
		return errors.Join(below(project, now, limit), s.set(project, old.LimitBytes, old.LimitInodes))
	}
	if now.LimitBytes != limit || now.LimitInodes != inodes {
		return fmt.Errorf("limit of project %d is %d bytes and %d inodes after setting %d and %d", project, now.LimitBytes, now.LimitInodes, limit, inodes)
	}
	s.limits[project] = limit
	return nil
}

// What Lend adds to a limit. To make a directory, XFS reserves the blocks that this takes in
// the worst case, more than 100 KiB (xfs_mkdir_space_res), and gives most of them back.
const (
	lentBytes  = 1 << 20
	lentInodes = 16
)

// Lend raises the limit of a project, or what it uses where that is more, by a little while
// do runs, and then sets the limit in bytes again. An agent that is killed meanwhile does
// so at its next start, with Assign.
func (s *Storage) Lend(project uint32, limit int64, do func() error) error {
	u, err := s.Usage(project)
	if err != nil {
		return err
	}
	limit = limit / blockSize * blockSize
	inodes := inodeLimit(limit)
	if err := s.set(project, max(limit, u.Bytes)+lentBytes, max(inodes, u.Inodes)+lentInodes); err != nil {
		return err
	}
	err = do()
	return errors.Join(err, s.force(project, limit))
}

// force sets a limit in bytes also where use is beyond it.
func (s *Storage) force(project uint32, limit int64) error {
	limit = limit / blockSize * blockSize
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.set(project, limit, inodeLimit(limit)); err != nil {
		return err
	}
	s.limits[project] = limit
	return nil
}

// Unlimit lifts the limits of a project that is to be erased. What it was promised stays its
// own until Release.
func (s *Storage) Unlimit(project uint32) error {
	if err := ours(project); err != nil {
		return err
	}
	return s.set(project, 0, 0)
}

func below(project uint32, u Usage, limit int64) error {
	return &BelowUseError{Project: project, Limit: limit, Inodes: inodeLimit(limit), UsedBytes: u.Bytes, UsedInodes: u.Inodes}
}

// promise makes room in the pool for a limit that goes up. The caller holds s.mu.
func (s *Storage) promise(project uint32, limit int64) error {
	if s.pool == nil || limit <= s.limits[project] {
		return nil
	}
	sum := cost(limit)
	for id, l := range s.limits {
		if id != project {
			sum += cost(l)
		}
	}
	return s.pool.hold(s.dir, sum)
}

// Usage reads what a project uses and may use from the kernel.
func (s *Storage) Usage(project uint32) (Usage, error) {
	if err := ours(project); err != nil {
		return Usage{}, err
	}
	return s.get(project)
}

// releaseWait is how long Release waits for XFS, which gives back deleted files
// in the background.
const releaseWait = 2 * time.Second

// Release clears the limits of a project whose directory has been removed, so
// that nothing is left of it in the kernel. ErrInUse says that the limits are
// clear but files remain: the id should not be used again yet. Deleting the VM
// should go on after any error.
func (s *Storage) Release(ctx context.Context, project uint32) error {
	if err := ours(project); err != nil {
		return err
	}
	if err := s.clear(project); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, releaseWait)
	defer cancel()
	return s.unused(ctx, project)
}

func (s *Storage) clear(project uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.set(project, 0, 0); err != nil {
		return err
	}
	delete(s.limits, project)
	return nil
}

// unused waits until nothing counts towards a project.
func (s *Storage) unused(ctx context.Context, project uint32) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		u, err := s.get(project)
		if err != nil || u.Bytes == 0 && u.Inodes == 0 {
			return err
		}
		if err := s.expedite(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return &InUseError{Project: project, Bytes: u.Bytes, Inodes: u.Inodes}
		case <-time.After(wait):
		}
	}
}

// expedite makes XFS begin to give back deleted files now: statfs does
// (xfs_inodegc_push, Linux 5.16).
func (s *Storage) expedite() error {
	var st unix.Statfs_t
	return unix.Fstatfs(int(s.dir.Fd()), &st)
}

// Sweep clears the limits of all projects that keep denies. It returns those
// that still have files.
func (s *Storage) Sweep(ctx context.Context, keep func(project uint32) bool) (busy []uint32, err error) {
	var gone []uint32
	err = s.each(projectBase, probeID, func(project uint32, _ Usage) error {
		if project == probeID || !keep(project) {
			gone = append(gone, project)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, project := range gone {
		if err := s.clear(project); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, releaseWait)
	defer cancel()
	for _, project := range gone {
		err := s.unused(ctx, project)
		if errors.Is(err, ErrInUse) {
			busy = append(busy, project)
		} else if err != nil {
			return busy, err
		}
	}
	return busy, nil
}

// Trim gives the blocks of deleted files in the pool back to the disk below. It
// goes through all free space, so the caller should not ask for it more often
// than every few seconds. On a file system of the host's it does nothing: trimming
// it is the host's business.
func (s *Storage) Trim(ctx context.Context) error {
	if s.pool == nil {
		return nil
	}
	s.trim.Lock()
	defer s.trim.Unlock()
	g, err := xfsGeometry(s.dir)
	if err != nil {
		return err
	}
	group := uint64(g.AGBlocks) * uint64(g.BlockSize)
	for i := range uint64(g.AGCount) {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := trimRange{Start: i * group, Len: group}
		if err := ioctl(int(s.dir.Fd()), fsIocTrim, unsafe.Pointer(&r)); err != nil {
			return fmt.Errorf("trim group %d of %s: %w", i, s.Dir(), err)
		}
	}
	return nil
}
