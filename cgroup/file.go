package cgroup

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// writeFile writes value to a control file in one write, as the kernel wants it.
func writeFile(dir, file, value string) error {
	fd, err := openRetry(filepath.Join(dir, file), unix.O_WRONLY)
	if err != nil {
		return fmt.Errorf("open %s of %s: %w", file, dir, err)
	}
	defer unix.Close(fd)
	for {
		_, err = unix.Write(fd, []byte(value))
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("write %q to %s of %s: %w", value, file, dir, err)
	}
	return nil
}

// readFile reads a whole control file.
func readFile(dir, file string) ([]byte, error) {
	fd, err := openRetry(filepath.Join(dir, file), unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w", file, dir, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 512)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, fmt.Errorf("read %s of %s: %w", file, dir, err)
		case n == 0:
			return buf, nil
		}
		buf = buf[:len(buf)+n]
	}
}

// openRetry opens without following links, again when a signal interrupts it.
func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// exists reports whether a control file is there.
func exists(dir, file string) bool {
	_, err := os.Lstat(filepath.Join(dir, file))
	return err == nil
}
