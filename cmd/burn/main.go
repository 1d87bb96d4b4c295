// Command burn is a synthetic cloudlet: it keeps a number of cores busy, holds
// memory that is really there, and writes to disk, for a time. Cloudlets without
// a command run it at the size of their request.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"cloudflash/cmd/quantity"
)

// load is what to burn.
type load struct {
	cpus    float64
	memory  int64
	write   int64 // bytes per second
	dir     string
	seconds float64
}

func main() {
	l, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "burn:", err)
		os.Exit(2)
	}
	stop := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case <-signals:
		case <-time.After(time.Duration(l.seconds * float64(time.Second))):
		}
		close(stop)
	}()
	began := time.Now()
	written, err := l.run(stop)
	fmt.Printf("burned %.2f cores, held %s, wrote %s in %.1f s\n", l.cpus, quantity.FormatBytes(l.memory), quantity.FormatBytes(written), time.Since(began).Seconds())
	if err != nil {
		fmt.Fprintln(os.Stderr, "burn:", err)
		os.Exit(1)
	}
}

func parse(args []string) (load, error) {
	var l load
	fs := flag.NewFlagSet("burn", flag.ContinueOnError)
	cpus := fs.String("cpus", "1", "cores to keep busy, such as 0.5")
	memory := fs.String("memory", "0", "memory to hold, such as 256MiB")
	write := fs.String("write", "0", "bytes to write per second, such as 5MiB/s")
	fs.StringVar(&l.dir, "dir", ".", "where to write")
	fs.Float64Var(&l.seconds, "seconds", 60, "how long")
	if err := fs.Parse(args); err != nil {
		return l, err
	}
	if fs.NArg() > 0 {
		return l, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	var err error
	if l.cpus, err = quantity.CPUs(*cpus); err != nil {
		return l, fmt.Errorf("--cpus: %w", err)
	}
	if l.cpus > 4096 {
		return l, fmt.Errorf("--cpus: %v is more than 4096", l.cpus)
	}
	if l.memory, err = quantity.Bytes(*memory); err != nil {
		return l, fmt.Errorf("--memory: %w", err)
	}
	if l.write, err = quantity.Bytes(*write); err != nil {
		return l, fmt.Errorf("--write: %w", err)
	}
	if !(l.seconds >= 0 && l.seconds < 1e9) {
		return l, fmt.Errorf("--seconds: %v is not 0 to 1e9", l.seconds)
	}
	return l, nil
}

// run burns until stop is closed and returns how much was written.
func (l load) run(stop <-chan struct{}) (written int64, err error) {
	held, err := hold(l.memory)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	for left := l.cpus; left > 0; left-- {
		wg.Go(func() { spin(min(left, 1), stop) })
	}
	if l.write > 0 {
		written, err = l.writeAtRate(stop)
	}
	<-stop
	wg.Wait()
	if held != nil {
		err = syscall.Munmap(held)
	}
	return written, err
}

// hold maps memory and touches every page, so that it is there.
func hold(bytes int64) ([]byte, error) {
	if bytes == 0 {
		return nil, nil
	}
	mem, err := syscall.Mmap(-1, 0, int(bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", quantity.FormatBytes(bytes), err)
	}
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = byte(i>>12) | 1 // no two pages alike, none zero
	}
	return mem, nil
}

// spin keeps one core busy for a share of the time, in turns of 10 ms.
func spin(share float64, stop <-chan struct{}) {
	const turn = 10 * time.Millisecond
	busy := time.Duration(share * float64(turn))
	for {
		until := time.Now().Add(busy)
		for time.Now().Before(until) {
			select {
			case <-stop:
				return
			default:
			}
		}
		if share >= 1 {
			continue
		}
		select {
		case <-stop:
			return
		case <-time.After(turn - busy):
		}
	}
}

// writeAtRate rewrites one file of at most 64 MiB, past the page cache, ten
// times a second.
func (l load) writeAtRate(stop <-chan struct{}) (int64, error) {
	path := filepath.Join(l.dir, fmt.Sprintf(".burn-%d", os.Getpid()))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := os.Remove(path); err != nil { // nothing stays behind, however it ends
		return 0, err
	}
	chunk := make([]byte, max(l.write/10, 1))
	var written int64
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := f.WriteAt(chunk, written%(64<<20))
		written += int64(n)
		if err == nil {
			err = syscall.Fdatasync(int(f.Fd()))
		}
		if err != nil {
			return written, fmt.Errorf("write: %w", err)
		}
		select {
		case <-stop:
			return written, nil
		case <-tick.C:
		}
	}
}
