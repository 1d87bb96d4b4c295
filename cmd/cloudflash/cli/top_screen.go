package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// topEvery is how often the picture is fetched: the agent has a new one as often.
const topEvery = time.Second

// What top says to the terminal: the other screen, no cursor, lines that are cut
// and not folded; and the way back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// watch shows top on the whole screen until a key or a signal ends it. However
// that comes, the terminal is left as it was found.
func (a *app) watch(ctx context.Context, onlyVMs bool) error {
	first, err := a.look(ctx, onlyVMs) // an agent that is not there is told on the usual screen
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	view := &topView{onlyVMs: onlyVMs, colour: a.Env("NO_COLOR") == "", sort: 'c'}
	view.take(first)
	keys := make(chan string)
	if in, ok := a.In.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		old, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		defer func() { _ = term.Restore(int(in.Fd()), old) }()
		running.Go(func() { readKeys(ctx, in, keys) })
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	if _, err := io.WriteString(a.Out, enterScreen); err != nil {
		return err
	}
	defer func() { _, _ = io.WriteString(a.Out, leaveScreen) }()
	pictures := make(chan func(*topView))
	running.Go(func() { a.fetch(ctx, onlyVMs, pictures) })
	for {
		if err := a.draw(view); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case k := <-keys:
			if view.key(k) {
				return nil
			}
		case news := <-pictures:
			if !view.paused {
				news(view)
			}
		case <-resized:
		}
	}
}

// fetch sends what each look at the agent changes.
func (a *app) fetch(ctx context.Context, onlyVMs bool, pictures chan<- func(*topView)) {
	tick := time.NewTicker(topEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p, err := a.look(ctx, onlyVMs)
		news := func(v *topView) { v.take(p) }
		if err != nil {
			news = func(v *topView) { v.miss(err) }
		}
		select {
		case <-ctx.Done():
			return
		case pictures <- news:
		}
	}
}

// draw writes the whole screen: home, each line and nothing after it, nothing below.
func (a *app) draw(v *topView) error {
	v.rows, v.cols = 24, 80
	if out, ok := a.outFile(); ok {
		if size, err := sizeOf(out); err == nil && size.Rows > 0 && size.Cols > 0 {
			v.rows, v.cols = int(size.Rows), int(size.Cols)
		}
	}
	_, err := io.WriteString(a.Out, "\x1b[H"+strings.Join(v.lines(), "\x1b[K\r\n")+"\x1b[K\x1b[J")
	return err
}

// outFile is the file behind Out.
func (a *app) outFile() (*os.File, bool) {
	if o, ok := a.Out.(*output); ok {
		f, ok := o.w.(*os.File)
		return f, ok
	}
	return nil, false
}

// readKeys sends what is typed, a key at a time. It looks at ctx every now and
// then, so that nothing is left reading from the terminal.
func readKeys(ctx context.Context, in *os.File, keys chan<- string) {
	buf := make([]byte, 64)
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 100)
		if errors.Is(err, unix.EINTR) || n == 0 {
			continue
		}
		if err != nil || fds[0].Revents&unix.POLLIN == 0 {
			return // hung up
		}
		if n, err = unix.Read(int(in.Fd()), buf); err != nil || n == 0 {
			return
		}
		for _, k := range splitKeys(string(buf[:n])) {
			select {
			case keys <- k:
			case <-ctx.Done():
				return
			}
		}
	}
}

// splitKeys cuts input into keys: an escape sequence is one.
func splitKeys(s string) (keys []string) {
	for len(s) > 0 {
		n := 1
		if s[0] == '\x1b' && len(s) > 2 && (s[1] == '[' || s[1] == 'O') {
			n = 3
			for n < len(s) && s[n-1] < '@' {
				n++
			}
		}
		keys, s = append(keys, s[:n]), s[n:]
	}
	return keys
}
