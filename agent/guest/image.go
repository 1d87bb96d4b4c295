package guest

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Unpack makes dir the root file system that a tar archive holds, plain or
// gzipped. It appears whole or not at all: what a killed call has left is begun
// anew. An archive of more than limit bytes is refused.
//
// The archive is not trusted: no name and no link in it leads out of dir
// (os.Root), and devices are left out.
func Unpack(ctx context.Context, archive, dir string, limit int64) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	part := dir + ".part"
	if err := RemoveTree(part); err != nil {
		return err
	}
	if err := os.Mkdir(part, 0o755); err != nil {
		return err
	}
	if err := unpackFile(ctx, archive, part, limit); err != nil {
		return errors.Join(fmt.Errorf("unpack %s: %w", archive, err), RemoveTree(part))
	}
	return os.Rename(part, dir)
}

func unpackFile(ctx context.Context, archive, dir string, limit int64) error {
	fd, err := unix.Open(archive, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) // a fifo does not hold us up
	if err != nil {
		return &os.PathError{Op: "open", Path: archive, Err: err}
	}
	f := os.NewFile(uintptr(fd), archive)
	defer f.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	buffered := bufio.NewReader(&until{ctx, f})
	var stream io.Reader = buffered
	if magic, _ := buffered.Peek(2); string(magic) == "\x1f\x8b" {
		if stream, err = gzip.NewReader(buffered); err != nil {
			return err
		}
	}
	u := &unpacker{ctx: ctx, root: root, left: limit}
	if err := u.all(tar.NewReader(&atMost{stream, most(limit)})); err != nil {
		return err
	}
	return u.finish()
}

// most is how long the archive of so many bytes may be, padding and long names included:
// what is left out has to be read all the same.
func most(limit int64) int64 { return 5*min(limit, math.MaxInt64/8) + 1<<20 }

// until reads until ctx is done.
type until struct {
	ctx context.Context
	r   io.Reader
}

func (u *until) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}

// atMost reads so much, and then fails.
type atMost struct {
	r    io.Reader
	left int64
}

func (a *atMost) Read(b []byte) (int, error) {
	if a.left <= 0 {
		return 0, errTooLarge
	}
	n, err := a.r.Read(b[:min(int64(len(b)), a.left)])
	a.left -= int64(n)
	return n, err
}

// unpacker writes the entries of one archive. Modes of directories are set last:
// one may forbid writing into it.
type unpacker struct {
	ctx  context.Context // of the one call that it is for
	root *os.Root
	left int64 // bytes that may still be written
	dirs map[string]*tar.Header
}

var errTooLarge = errors.New("it holds more than the VM's storage")

func (u *unpacker) all(r *tar.Reader) error {
	u.dirs = map[string]*tar.Header{}
	const perEntry = 512 // what a file costs even when it is empty, so that their number is bounded too
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if n == 0 {
				return errors.New("it is empty")
			}
			return nil
		}
		if errors.Is(err, errTooLarge) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err != nil {
			return fmt.Errorf("it is no tar archive, plain or gzipped: %w", err)
		}
		if u.left -= perEntry; u.left < 0 {
			return errTooLarge
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if name == "" {
			name = "."
		}
		if err := u.entry(name, h, r); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
}

func (u *unpacker) entry(name string, h *tar.Header, r io.Reader) error {
	if name != "." {
		if err := u.clear(name, h.Typeflag == tar.TypeDir); err != nil {
			return err
		}
	}
	var err error
	switch h.Typeflag {
	case tar.TypeDir:
		u.dirs[name] = h
		return u.root.MkdirAll(name, 0o755)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		err = u.file(name, h, r)
	case tar.TypeSymlink:
		err = u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return u.root.Link(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"), name)
	default: // devices, fifos: /dev is the VM's own
		if u.left -= h.Size; u.left < 0 { // it is read all the same
			return errTooLarge
		}
		return nil
	}
	if err != nil {
		return err
	}
	return u.own(name, h)
}

// clear makes room: a later entry replaces an earlier one, directories excepted,
// and its directory may not have had an entry.
func (u *unpacker) clear(name string, isDir bool) error {
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	old, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || isDir && old.IsDir() {
		return err
	}
	return u.root.RemoveAll(name)
}

func (u *unpacker) file(name string, h *tar.Header, r io.Reader) error {
	if u.left -= h.Size; u.left < 0 {
		return errTooLarge
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, &until{u.ctx, r}) // holes are in no stream
	return errors.Join(err, f.Close())
}

// own gives an entry its owner, mode and time: ids of the VM, which its mount maps.
func (u *unpacker) own(name string, h *tar.Header) error {
	if h.Uid < 0 || h.Uid >= idCount || h.Gid < 0 || h.Gid >= idCount {
		return fmt.Errorf("owner %d:%d is beyond the ids of a VM, 0 to %d", h.Uid, h.Gid, idCount-1)
	}
	if err := u.root.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil // os.Root cannot set the time of a link
	}
	if err := u.root.Chmod(name, h.FileInfo().Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return u.root.Chtimes(name, h.ModTime, h.ModTime)
}

func (u *unpacker) finish() error {
	for name, h := range u.dirs {
		if info, err := u.root.Lstat(name); err != nil || !info.IsDir() {
			continue // replaced by a later entry
		}
		if err := u.own(name, h); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	return nil
}

// IsArchive reports whether an image is a file, to be unpacked, and no directory.
func IsArchive(image string) bool {
	info, err := os.Stat(image)
	return image != "host" && filepath.IsAbs(image) && err == nil && info.Mode().IsRegular()
}
