package metrics

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"
)

const (
	textfileName = "textfile"
	maxFiles     = 100
	maxFileBytes = 1 << 20
	maxSeries    = 10000 // of all files together, in lines
)

// textfile reads metrics from the *.prom files of one directory, as
// node_exporter's collector of that name does: text format without timestamps,
// written to another name first and renamed. A file that cannot be taken is
// reported and left out whole; the others are not touched by it.
//
// The agent is root and the directory may be somebody else's, so only regular
// files with one name are read, links are not followed and pipes not waited for.
type textfile struct {
	dir   string
	log   *slog.Logger
	files map[string]*promFile
}

// promFile is what was read of a file, until it changes.
type promFile struct {
	stamp    stamp
	families []*dto.MetricFamily
	err      error
}

// stamp changes whenever a file does.
type stamp struct {
	inode        uint64
	size         int64
	mtime, ctime unix.Timespec
}

func (t *textfile) gather() ([]*dto.MetricFamily, error) {
	names, err := t.list()
	m := newMerge()
	report := newReport()
	if err != nil {
		report.failed = true
		return report.families(), err
	}
	errs := []error{}
	for name := range t.files {
		if !slices.Contains(names, name) {
			delete(t.files, name)
		}
	}
	for i, name := range names {
		err := fmt.Errorf("only the first %d files are read", maxFiles)
		if i < maxFiles {
			err = t.file(name, m, report)
		}
		if errors.Is(err, unix.ENOENT) {
			continue // replaced or removed just now
		}
		if i < maxFiles {
			report.file(printable(name), err)
		}
		if err != nil {
			report.failed = true
			errs = append(errs, fmt.Errorf("%s: %w", printable(name), err))
			if i >= maxFiles {
				break
			}
		}
	}
	return append(m.families(), report.families()...), errors.Join(errs...)
}

// list names the *.prom files in order.
func (t *textfile) list() ([]string, error) {
	d, err := os.Open(t.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	all, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(all, func(n string) bool { return !strings.HasSuffix(n, ".prom") || strings.HasPrefix(n, ".") })
	slices.Sort(names)
	return names, nil
}

// printable is the name of a file in UTF-8. No two are the same: what does not
// stay as it is begins with a quote.
func printable(name string) string {
	if utf8.ValidString(name) && !strings.HasPrefix(name, `"`) {
		return name
	}
	return strconv.Quote(name)
}

// file reads a file, if it has changed, and merges it with those before.
func (t *textfile) file(name string, m *merge, r *report) error {
	fd, err := unix.Open(t.dir+"/"+name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		if errors.Is(err, unix.ELOOP) {
			return errors.New("is a symbolic link")
		}
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("is no regular file")
	case st.Nlink != 1: // perhaps a file of root's that cannot be read otherwise
		return fmt.Errorf("has %d names", st.Nlink)
	case st.Size > maxFileBytes:
		return fmt.Errorf("has %d bytes, more than %d", st.Size, maxFileBytes)
	}
	now := stamp{st.Ino, st.Size, st.Mtim, st.Ctim}
	p := t.files[name]
	if p == nil || p.stamp != now {
		p = &promFile{stamp: now}
		p.families, p.err = parseProm(f)
		t.files[name] = p
	}
	if p.err != nil {
		return p.err
	}
	shown := printable(name)
	err = m.add(shown, p.families)
	if !errors.Is(err, errLeftOut) {
		r.mtime(shown, time.Unix(st.Mtim.Unix()))
	}
	return err
}
