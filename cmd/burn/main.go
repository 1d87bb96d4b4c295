// Command burn is a synthetic cloudlet: it keeps a number of cores busy, holds
// memory that is really there, writes to disk and sends over the network, for a
// time or along a trace, and prints as JSON what it achieved. Cloudlets without a
// command run it at the size of their request.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"cloudflash/cmd/quantity"
)

const maxSeconds = 1e9

// load is what to burn. Rates are per second.
type load struct {
	cpu       demand
	memory    int64 // bytes
	growth    int64 // of memory, in bytes; 0 is all at once
	disk, net int64 // bytes
	dir, to   string
}

// result is what was achieved.
type result struct {
	Seconds           float64   `json:"seconds"`
	CPUs              float64   `json:"cpus"`
	CPUSeconds        float64   `json:"cpu_seconds"`
	WantedCPUSeconds  float64   `json:"wanted_cpu_seconds"`
	BacklogCPUSeconds float64   `json:"backlog_cpu_seconds"`      // wanted and not done
	BacklogPeak       float64   `json:"backlog_peak_cpu_seconds"` // at the worst moment of a trace
	MemoryBytes       int64     `json:"memory_bytes"`
	DiskBytes         int64     `json:"disk_bytes"`
	DiskBPS           float64   `json:"disk_wbps"` // bytes per second
	NetBytes          int64     `json:"net_bytes"`
	BandwidthBPS      float64   `json:"bandwidth_bps"` // bits per second
	Began             time.Time `json:"began"`         // with the first line of a trace, once memory is held
}

func main() {
	l, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
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
		case <-time.After(l.cpu.length()):
		}
		close(stop)
	}()
	r, err := l.run(stop)
	if encodeErr := json.NewEncoder(os.Stdout).Encode(r); encodeErr != nil {
		err = errors.Join(err, encodeErr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "burn:", err)
		os.Exit(1)
	}
}

func parse(args []string) (load, error) {
	var l load
	var seconds float64
	fs := flag.NewFlagSet("burn", flag.ContinueOnError)
	cpus := fs.String("cpus", "1", "cores to keep busy, such as 0.5")
	memory := fs.String("memory", "0", "memory to hold, such as 256MiB")
	growth := fs.String("memory-rate", "0", "how fast it grows to that, such as 50MiB/s; all at once, before anything else, when left out")
	disk := fs.String("disk", "0", "what to write to disk, such as 5MiB/s")
	bits := fs.String("net", "0", "what to send, such as 10Mbit")
	trace := fs.String("trace", "", "instead of --cpus and --seconds: a file with one number of cores per line; what could not be done in time is done later")
	step := fs.Duration("step", time.Second, "time of one line of the trace")
	drop := fs.Bool("drop", false, "what could not be done in time of a trace is lost, as without one")
	fs.StringVar(&l.dir, "dir", ".", "where to write")
	fs.StringVar(&l.to, "to", "", "HOST:PORT to send to over TCP (itself over loopback)")
	fs.Float64Var(&seconds, "seconds", 60, "how long")
	if err := fs.Parse(args); err != nil {
		return l, err
	}
	if fs.NArg() > 0 {
		return l, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	var err error
	if l.memory, err = quantity.Bytes(*memory); err != nil {
		return l, fmt.Errorf("--memory: %w", err)
	}
	if l.growth, err = quantity.Bytes(*growth); err != nil {
		return l, fmt.Errorf("--memory-rate: %w", err)
	}
	if l.disk, err = quantity.Bytes(*disk); err != nil {
		return l, fmt.Errorf("--disk: %w", err)
	}
	if l.net, err = quantity.Bits(*bits); err != nil {
		return l, fmt.Errorf("--net: %w", err)
	}
	l.net /= 8
	if *trace != "" {
		l.cpu, err = openTrace(*trace, *step)
		l.cpu.carry = l.cpu.carry && !*drop
		return l, err
	}
	cores, err := quantity.CPUs(*cpus)
	if err != nil {
		return l, fmt.Errorf("--cpus: %w", err)
	}
	if cores > maxCPUs {
		return l, fmt.Errorf("--cpus: %v is more than %d", cores, maxCPUs)
	}
	if !(seconds > 0 && seconds <= maxSeconds) {
		return l, fmt.Errorf("--seconds: %v is not above 0 and up to 1e9", seconds)
	}
	l.cpu = constant(cores, time.Duration(seconds*float64(time.Second)))
	return l, nil
}

func openTrace(path string, step time.Duration) (demand, error) {
	if step <= 0 {
		return demand{}, fmt.Errorf("--step: %v is not above 0", step)
	}
	f, err := os.Open(path)
	if err != nil {
		return demand{}, fmt.Errorf("--trace: %w", err)
	}
	defer f.Close()
	d, err := readTrace(f, step)
	if err != nil {
		return demand{}, fmt.Errorf("--trace: %s: %w", path, err)
	}
	return d, nil
}

// run burns until stop is closed.
func (l load) run(stop <-chan struct{}) (result, error) {
	mem, err := newMemory(l.memory, l.growth)
	if err != nil {
		return result{}, err
	}
	var wg sync.WaitGroup
	if l.growth > 0 {
		wg.Go(func() { mem.fill(stop) })
	} else {
		mem.fill(stop)
	}
	var r result
	var diskErr, netErr error
	began := time.Now()
	cpu := &processor{demand: l.cpu, began: began}
	wg.Go(func() { cpu.run(stop) })
	if l.disk > 0 {
		wg.Go(func() { r.DiskBytes, diskErr = writeDisk(l.dir, l.disk, stop) })
	}
	if l.net > 0 {
		wg.Go(func() { r.NetBytes, netErr = sendNet(l.to, l.net, stop) })
	}
	wg.Wait()
	took := time.Since(began)
	r.Began, r.MemoryBytes = began, mem.held.Load()
	l.account(&r, cpu, took)
	if diskErr != nil {
		err = fmt.Errorf("write to disk: %w", diskErr)
	}
	if netErr != nil {
		err = errors.Join(err, fmt.Errorf("send: %w", netErr))
	}
	return r, err
}

func (l load) account(r *result, cpu *processor, took time.Duration) {
	r.Seconds = took.Seconds()
	r.CPUSeconds = time.Duration(cpu.used.Load()).Seconds()
	r.WantedCPUSeconds = l.cpu.until(took)
	r.BacklogCPUSeconds = max(0, r.WantedCPUSeconds-r.CPUSeconds)
	r.BacklogPeak = time.Duration(cpu.peak.Load()).Seconds() * float64(l.cpu.threads())
	r.CPUs = r.CPUSeconds / r.Seconds
	r.DiskBPS = float64(r.DiskBytes) / r.Seconds
	r.BandwidthBPS = float64(r.NetBytes) * 8 / r.Seconds
}
