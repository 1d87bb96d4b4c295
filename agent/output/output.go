// Package output keeps what cloudlets write to stdout and stderr: a file for
// each, in a directory of root's that nobody in the VM can name. The cloudlet
// has it open for appending and nothing else of the host; the agent never holds
// a pipe of its.
//
// A file grows while its cloudlet runs. Of a long one only the newest part is
// kept: the oldest is punched out, and the file keeps its length, so that
// offsets stay valid and the writer is not disturbed. What is left of it reads
// as zeros, which a Reader leaves out.
package output

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Streams are what a cloudlet writes to.
var Streams = []string{"stdout", "stderr"}

// A Dir is the directory with the output of one VM's cloudlets.
type Dir string

func (d Dir) path(cloudlet, stream string) string {
	return filepath.Join(string(d), cloudlet+"."+stream)
}

// Create makes the file of a stream for appending. It belongs to owner, the
// root of the VM, so that /dev/stdout can be opened again inside. No link of
// theirs is ever followed: the directory is root's.
func (d Dir) Create(cloudlet, stream string, owner int) (*os.File, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND | syscall.O_NOFOLLOW
	f, err := os.OpenFile(d.path(cloudlet, stream), flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chown(owner, owner); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Open opens the file of a stream for reading. An error that is os.ErrNotExist
// means that the cloudlet has never been started in this VM.
func (d Dir) Open(cloudlet, stream string) (*Reader, error) {
	path := d.path(cloudlet, stream)
	fd, err := openNow(path, unix.O_RDONLY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return NewReader(os.NewFile(uintptr(fd), path)), nil
}

// ErrLeased means that a process of the VM has a lease on its output (fcntl(2)): whoever
// opens the file has to wait until it gives that up, or the kernel takes it back.
var ErrLeased = errors.New("a process of the VM has a lease on the file")

// openNow opens a file that the VM's root owns, and does not wait for anybody in the VM.
func openNow(path string, flags int) (int, error) {
	fd, err := unix.Open(path, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return -1, ErrLeased
	}
	return fd, err
}

// Bound gives back the disk space of all but the newest keep bytes of each
// stream of a cloudlet, once it takes more than twice that. ErrLeased is to be tried again.
func (d Dir) Bound(cloudlet string, keep int64) error {
	var errs []error
	for _, stream := range Streams {
		path := d.path(cloudlet, stream)
		if err := punch(path, keep); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, &os.PathError{Op: "punch", Path: path, Err: err})
		}
	}
	return errors.Join(errs...)
}

// punch makes a hole of all but the last keep bytes of a file that occupies
// more than twice that.
func punch(path string, keep int64) error {
	fd, err := openNow(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Blocks*512 <= 2*keep || st.Size <= keep {
		return nil
	}
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, st.Size-keep)
}
