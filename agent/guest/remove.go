package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// RemoveTree removes a directory that a VM has filled, or a file. No link in it is
// followed. Unlike os.RemoveAll it takes the same few open files for every depth:
// a VM can nest more directories than a process can open, and so make itself
// impossible to delete. What is gone already is fine.
func RemoveTree(path string) error {
	if err := os.Remove(path); err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	top, err := openTop(unix.AT_FDCWD, path)
	if err != nil {
		return fmt.Errorf("open %s to remove it: %w", path, err)
	}
	r := &remover{top: top}
	err = r.run()
	top.Close()
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func openTop(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Base(name)), nil
}

// remover empties one directory: what lies deeper it moves up into that one.
type remover struct {
	top   *os.File
	moved int
}

func (r *remover) run() error {
	return each(r.top, func(name string) error {
		if err := unlink(r.top, name); !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		child, err := openTop(int(r.top.Fd()), name)
		if err != nil {
			return err
		}
		err = each(child, func(name string) error {
			if err := unlink(child, name); !errors.Is(err, unix.ENOTEMPTY) {
				return err
			}
			return r.lift(child, name)
		})
		child.Close()
		if err != nil {
			return err
		}
		return unlink(r.top, name)
	})
}

// lift moves a directory that is not empty to the top, under a name that is free.
func (r *remover) lift(from *os.File, name string) error {
	for {
		r.moved++
		err := unix.Renameat2(int(from.Fd()), name, int(r.top.Fd()), ".removed-"+strconv.Itoa(r.moved), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
}

// each calls f for every entry, until there is none: f removes it.
func each(dir *os.File, f func(name string) error) error {
	for {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := dir.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := f(name); err != nil {
				return fmt.Errorf("%.100q: %w", name, err)
			}
		}
	}
}

// unlink removes a file or an empty directory.
func unlink(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
