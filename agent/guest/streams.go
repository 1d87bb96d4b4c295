package guest

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Streams are what is connected to a process.
type Streams struct {
	Stdin          io.ReadCloser // closed when the process has ended
	Stdout, Stderr io.Writer     // of a terminal there is only the first
	Sizes          <-chan TerminalSize
}

// TerminalSize is in characters.
type TerminalSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Pumps carry the input and output of a process.
type Pumps struct {
	out   sync.WaitGroup // ends when nobody in the VM can write any more
	in    sync.WaitGroup // ends with the input or with the command
	files []*os.File
	stdin io.Closer
	from  []*outflow
}

// outflow is one stream of output.
type outflow struct {
	file   *os.File
	to     io.Writer
	passed atomic.Int64 // bytes
}

func (w *Pumps) carry(from *os.File, to io.Writer, end func()) {
	o := &outflow{file: from, to: to}
	w.from = append(w.from, o)
	w.out.Go(func() {
		defer end()
		_, _ = io.Copy(o, from) // of a terminal: EIO when the last process has closed its side
	})
}

func (o *outflow) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	o.passed.Add(int64(n))
	return n, err
}

// waits is how much has not been read yet.
func (o *outflow) waits() (n int64) {
	if raw, err := o.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if got, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
				n = int64(got)
			}
		})
	}
	return n
}

// Attach starts a process whose input and output are carried to and from somebody, by
// pipes that are the owner's, or by a terminal.
func (g *Guest) Attach(ctx context.Context, p Process, s Streams, owner int) (*Pumps, error) {
	if p.Terminal {
		return g.attachTerminal(ctx, p, s)
	}
	var ends [6]*os.File // read, write of stdin, stdout, stderr
	for i := 0; i < len(ends); i += 2 {
		var err error
		if ends[i], ends[i+1], err = os.Pipe(); err != nil {
			closeFiles(ends[:i])
			return nil, err
		}
	}
	ours, theirs := []*os.File{ends[1], ends[2], ends[4]}, []*os.File{ends[0], ends[3], ends[5]}
	defer closeFiles(theirs)
	for _, f := range theirs { // so that /dev/stdin and the others can be opened again inside
		if err := f.Chown(owner, owner); err != nil {
			closeFiles(ours)
			return nil, err
		}
	}
	p.Stdin, p.Stdout, p.Stderr = theirs[0], theirs[1], theirs[2]
	if _, err := g.Start(ctx, p); err != nil {
		closeFiles(ours)
		return nil, err
	}
	w := &Pumps{files: ours, stdin: s.Stdin}
	w.in.Go(func() {
		_, _ = io.Copy(ours[0], s.Stdin)
		_ = ours[0].Close() // the command reads an end of file
	})
	w.carry(ours[1], s.Stdout, func() {})
	w.carry(ours[2], s.Stderr, func() {})
	return w, nil
}

func (g *Guest) attachTerminal(ctx context.Context, p Process, s Streams) (*Pumps, error) {
	run, err := g.Start(ctx, p)
	if err != nil {
		return nil, err
	}
	if run.Terminal == nil {
		return nil, fmt.Errorf("start %s: no terminal came back", p.Argv[0])
	}
	w := &Pumps{files: []*os.File{run.Terminal}, stdin: s.Stdin}
	done := make(chan struct{})
	w.carry(run.Terminal, s.Stdout, func() { close(done) })
	w.in.Go(func() { _, _ = io.Copy(run.Terminal, s.Stdin) })
	w.in.Go(func() {
		for {
			select {
			case <-done:
				return
			case size, ok := <-s.Sizes:
				if !ok {
					return
				}
				resize(run.Terminal, size)
			}
		}
	})
	return w, nil
}

// resize tells the processes on the terminal too (SIGWINCH).
func resize(terminal *os.File, size TerminalSize) {
	if raw, err := terminal.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
		})
	}
}

// heldFor is how long silence has to last until the output of a command that has
// ended, and that somebody else keeps open, is taken to be complete.
const heldFor = 500 * time.Millisecond

// Drain waits until all output of a command that has ended is passed on. Its
// scope has been killed, so as a rule nobody holds the other end. But anybody else
// in the VM may have opened it: that one is not waited for, and what it writes
// is passed on no further than what might be the command's.
func (w *Pumps) Drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { closeFiles(w.files) })
	defer stop()
	done := make(chan struct{})
	go func() { // ends in Close at the latest
		w.out.Wait()
		close(done)
	}()
	most := make([]int64, len(w.from))
	for i, o := range w.from {
		most[i] = o.passed.Load() + o.waits() + 64<<10 // and what a pump has in its hands
	}
	tick := time.NewTicker(heldFor / 10)
	defer tick.Stop()
	for quiet := 0; quiet < 10; quiet++ {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		for i, o := range w.from {
			if o.waits() > 0 && o.passed.Load() < most[i] {
				quiet = 0
			}
		}
	}
}

// Close ends every pump and waits for it.
func (w *Pumps) Close() {
	closeFiles(w.files)
	_ = w.stdin.Close()
	w.out.Wait()
	w.in.Wait()
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
