package pagemap

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WindowPages is how many page frames are read at a time: 512 KiB of each file,
// the size that costs the least per page.
const WindowPages = 1 << 16

// source is where flags and owners of page frames come from. Reads beyond the
// last frame return less than asked for.
type source interface {
	// Flags fills buf with the words of /proc/kpageflags.
	Flags(first uint64, buf []uint64) (int, error)
	// Owners fills buf with the inode of the cgroup each page is charged to.
	Owners(first uint64, buf []uint64) (int, error)
	Close() error
}

// kpages is the source of a real kernel.
type kpages struct {
	flags  int
	owners int // -1 without CONFIG_MEMCG
}

// openPages opens both files and reads one page of each: a kernel that cannot be
// asked fails here. first is a frame with memory.
func (fs FS) openPages(first uint64) (*kpages, error) {
	flags, err := fs.open("proc/kpageflags")
	if err != nil {
		return nil, err
	}
	k := &kpages{flags: flags, owners: -1}
	if k.owners, err = fs.open("proc/kpagecgroup"); errors.Is(err, ErrUnsupported) {
		k.owners, err = -1, nil
	}
	var one [1]uint64
	if err == nil {
		if _, err = k.Flags(first, one[:]); err == nil {
			_, err = k.Owners(first, one[:])
		}
	}
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Close closes the files.
func (k *kpages) Close() error {
	err := unix.Close(k.flags)
	if k.owners >= 0 {
		err = errors.Join(err, unix.Close(k.owners))
	}
	k.flags, k.owners = -1, -1
	return err
}

// Flags reads /proc/kpageflags.
func (k *kpages) Flags(first uint64, buf []uint64) (int, error) {
	n, err := words(k.flags, first, buf)
	if err != nil {
		return n, fmt.Errorf("read kpageflags at frame %d: %w", first, err)
	}
	return n, nil
}

// Owners reads /proc/kpagecgroup. Without CONFIG_MEMCG nobody owns anything.
func (k *kpages) Owners(first uint64, buf []uint64) (int, error) {
	if k.owners < 0 {
		clear(buf)
		return len(buf), nil
	}
	n, err := words(k.owners, first, buf)
	if err != nil {
		return n, fmt.Errorf("read kpagecgroup at frame %d: %w", first, err)
	}
	return n, nil
}

// words reads 64-bit words. The kernel takes only whole ones, at whole offsets,
// and may return fewer than it was asked for.
func words(fd int, first uint64, buf []uint64) (int, error) {
	if len(buf) == 0 || first > maxFrames {
		return 0, nil
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), len(buf)*8)
	done := 0
	for done < len(b) {
		n, err := pread(fd, b[done:], int64(first)*8+int64(done))
		if err != nil {
			return done / 8, err
		}
		if n < 8 {
			break
		}
		done += n &^ 7
	}
	return done / 8, nil
}
