package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"github.com/google/go-cmp/cmp"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/sys/unix"
)

func topPicture(at time.Time, n int) picture {
	p := picture{Host: agent.Host{Name: "box", Kernel: "6.12", CPUs: 4, MemoryBytes: 8 << 30, UptimeSeconds: 3700, Usage: agent.HostUsage{CPURatio: 0.95, MemoryUsedBytes: 4 << 30}}}
	for i := range n {
		p.VMs = append(p.VMs, agent.VM{ID: fmt.Sprint("v", i), Name: fmt.Sprintf("vm%02d", i), State: agent.VMRunning, Usage: agent.Usage{At: at, CPUs: float64(i), MemoryBytes: int64(n-i) << 20}})
		p.Cloudlets = append(p.Cloudlets, agent.Cloudlet{Name: fmt.Sprintf("job%02d", i), VMName: "vm00", State: agent.CloudletRunning, Usage: agent.Usage{CPUs: float64(i)}})
	}
	return p
}

func order(lines []string, prefix string) (names []string) {
	for _, l := range lines {
		if name, _, _ := strings.Cut(l, " "); strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

func TestTopView(t *testing.T) {
	v := &topView{rows: 24, cols: 100, sort: 'c'}
	v.take(topPicture(time.Unix(100, 0), 3))
	v.Cloudlets[0].State = agent.CloudletSucceeded
	tests := []struct {
		keys      string
		vms, jobs []string
	}{
		{"", []string{"vm02", "vm01", "vm00"}, []string{"job02", "job01"}},
		{"r", []string{"vm00", "vm01", "vm02"}, []string{"job01", "job02"}},
		{"re", []string{"vm02", "vm01", "vm00"}, []string{"job02", "job01", "job00"}},
		{"em", []string{"vm00", "vm01", "vm02"}, []string{"job01", "job02"}},
		{"a?x", []string{"vm00", "vm01", "vm02"}, []string{"job01", "job02"}},
	}
	for _, tt := range tests {
		for _, k := range splitKeys(tt.keys) {
			if v.key(k) {
				t.Errorf("%q quits", k)
			}
		}
		lines := v.lines()
		if diff := cmp.Diff(tt.vms, order(lines, "vm")) + cmp.Diff(tt.jobs, order(lines, "job")); diff != "" {
			t.Errorf("after %q: %s\n%s", tt.keys, diff, strings.Join(lines, "\n"))
		}
	}
	for _, k := range []string{"q", "\x03", "\x04"} {
		if !v.key(k) {
			t.Errorf("%q does not quit", k)
		}
	}
}

func TestTopRates(t *testing.T) {
	v := &topView{rows: 24, cols: 200, sort: 'n'}
	v.take(topPicture(time.Unix(100, 0), 2))
	p := topPicture(time.Unix(102, 0), 2)
	p.VMs[0].Usage.ReceivedBytes, p.VMs[0].Usage.WrittenBytes = 1000, 4<<20
	p.VMs[0].Usage.Periods, p.VMs[0].Usage.ThrottledPeriods = 20, 5
	v.take(p)
	if got, want := v.rates["v0"], (rates{received: 4000, written: 2 << 20, throttled: 0.25}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	v.take(p) // nothing new: what was known stands
	if v.rates["v0"].received != 4000 {
		t.Error("an old picture makes rates 0")
	}
	if got := order(v.lines(), "vm"); got[0] != "vm00" {
		t.Errorf("by network: %v", got)
	}
}

// Whatever the size, the screen has no more lines and columns than that, and what
// is beyond it can be reached.
func TestTopFits(t *testing.T) {
	for _, onlyVMs := range []bool{false, true} {
		v := &topView{sort: 'a', colour: true, onlyVMs: onlyVMs}
		v.take(topPicture(time.Unix(100, 0), 50))
		v.VMs[3].Name, v.Cloudlets[3].Name = "日本語日本語日本語日本語日本語日本語", "evil\x1b[2J\nname"
		for rows := 1; rows < 60; rows++ {
			for _, cols := range []int{1, 5, 20, 40, 80, 200} {
				v.rows, v.cols = rows, cols
				lines := v.lines()
				if len(lines) > rows {
					t.Fatalf("%d lines on %d rows", len(lines), rows)
				}
				for _, l := range lines {
					if n := text.StringWidthWithoutEscSequences(l); n > cols || strings.ContainsAny(l, "\n\r") || strings.Contains(l, "[2J") && strings.Contains(l, "\x1b[2J") {
						t.Fatalf("%d columns on %d: %q", n, cols, l)
					}
				}
			}
		}
		v.rows, v.cols = 20, 80
		for range 100 {
			v.key("\x1b[B")
			v.lines()
		}
		if got := order(v.lines(), "vm"); got[len(got)-1] != "vm49" {
			t.Errorf("the end is %v", got)
		}
		v.key("g")
		if got := order(v.lines(), "vm"); got[0] != "vm00" {
			t.Errorf("the beginning is %v", got)
		}
	}
}

func TestTopSaysThatThePictureIsOld(t *testing.T) {
	v := &topView{rows: 24, cols: 100, sort: 'c'}
	v.take(topPicture(time.Unix(100, 0), 1))
	v.miss(errors.New("cannot reach the agent\nhint: \x1b"))
	v.miss(errors.New("cannot reach the agent\nhint: \x1b"))
	if last := v.lines()[23]; !strings.Contains(last, "cannot reach the agent (tried 2 times") {
		t.Error(last)
	}
	v.take(topPicture(time.Unix(101, 0), 1))
	if last := v.lines()[23]; !strings.Contains(last, "by CPU") {
		t.Error(last)
	}
}

func TestSplitKeys(t *testing.T) {
	for in, want := range map[string][]string{"": nil, "q": {"q"}, "ab": {"a", "b"}, "\x1b[A\x1b[5~x": {"\x1b[A", "\x1b[5~", "x"}, "\x1b": {"\x1b"}, "\x1bOB\x1b[1;5Aq": {"\x1bOB", "\x1b[1;5A", "q"}, "\x1b[": {"\x1b", "["}} {
		if diff := cmp.Diff(want, splitKeys(in)); diff != "" {
			t.Errorf("%q: %s", in, diff)
		}
	}
}

// pty is a terminal with a person at the other end.
func pty(t *testing.T) (person, tty *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no /dev/ptmx here: ", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetNonblock(fd, true)
	person = os.NewFile(uintptr(fd), "person")
	t.Cleanup(func() { _ = person.Close() })
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return person, tty
}

func resize(t *testing.T, tty *os.File, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Fatal(err)
	}
}

// shows waits for text on a screen that is drawn again every second.
func shows(t *testing.T, screen *buffer, text string) {
	t.Helper()
	for range 1000 {
		if strings.Contains(screen.String(), text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never shows %q, only %q", text, screen)
}

func TestTopOnATerminal(t *testing.T) {
	for name, leave := range map[string]func(person *os.File, cancel func()){
		"q":            func(p *os.File, _ func()) { _, _ = p.WriteString("q") },
		"Ctrl-C":       func(p *os.File, _ func()) { _, _ = p.WriteString("\x03") },
		"a signal":     func(_ *os.File, cancel func()) { cancel() },
		"keys, then q": func(p *os.File, _ func()) { _, _ = p.WriteString("m\x1b[B\t re q") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			person, tty := pty(t)
			resize(t, tty, 30, 100)
			before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			seen := newBuffer()
			go func() {
				buf := make([]byte, 4096)
				for {
					n, err := person.Read(buf)
					_, _ = seen.Write(buf[:n])
					if err != nil {
						return
					}
				}
			}()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p := process([]string{"top"}, map[string]string{"CLOUDFLASH_HOST": r.unix})
			p.In, p.Out, p.Err = tty, tty, tty
			code := make(chan int, 1)
			go func() { code <- Main(ctx, p) }()
			shows(t, seen, enterScreen)
			shows(t, seen, "CLOUDLET")
			shows(t, seen, "by CPU")
			_, _ = person.WriteString("m")
			shows(t, seen, "by memory")
			resize(t, tty, 12, 40)
			_ = unix.Kill(os.Getpid(), unix.SIGWINCH) // no session here has this terminal, so the kernel does not tell
			shows(t, seen, "by memory   c m n d p a sort  r reverse \x1b[K\x1b[J")
			leave(person, cancel)
			if got := <-code; got != 0 {
				t.Errorf("exit code %d", got)
			}
			shows(t, seen, leaveScreen)
			after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil || *after != *before {
				t.Errorf("the terminal was %+v, is %+v (%v)", before, after, err)
			}
		})
	}
}

// Without an agent, nothing of the terminal is touched.
func TestTopWithoutAnAgent(t *testing.T) {
	person, tty := pty(t)
	p := process([]string{"top"}, map[string]string{"CLOUDFLASH_HOST": "unix:///nonexistent/api.sock"})
	p.In, p.Out = tty, tty
	if code := Main(t.Context(), p); code != ExitUnreachable {
		t.Errorf("exit code %d", code)
	}
	_ = person.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	buf := make([]byte, 100)
	if n, _ := person.Read(buf); n > 0 {
		t.Errorf("%q", buf[:n])
	}
}
