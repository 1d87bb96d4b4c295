package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	vmMemory    = "3072" // MiB
	bootTime    = 4 * time.Minute
	endTime     = time.Minute
	jobTime     = 10 * time.Minute // a test of the everyday tier; it prints its goroutines then
	longJobTime = 100 * time.Minute
	jobGrace    = time.Minute // beyond that time, then the VM is ended
)

// errGone is a VM that ended by itself.
var errGone = errors.New("the VM ended")

// A testVM takes jobs, one after the other. On its standard input it gets the
// commands of scripts/lib/worker, on its output is what they say.
type testVM struct {
	kernel string
	port   int // on 127.0.0.1, of port 5000 in the VM
	mark   string
	in     io.WriteCloser
	lines  chan string
	ended  chan struct{}
	cancel context.CancelFunc
	told   *os.File // what scripts/vm says
}

// boot starts a VM in which /mnt/dir is a copy of dir.
func boot(ctx context.Context, kernel, dir, log string) (*testVM, error) {
	told, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	vm := &testVM{
		kernel: kernel,
		port:   port,
		mark:   rand.Text(),
		lines:  make(chan string),
		ended:  make(chan struct{}),
		cancel: cancel,
		told:   told,
	}

	cmd := command(ctx, told, "scripts/vm", "--kernel", kernel, "--mem", vmMemory, "--one-thread", "--timeout", "0", "--dir", dir,
		"--publish", strconv.Itoa(port)+":5000", "--", "bash", "/mnt/dir/worker", "/mnt/dir", vm.mark)
	if kernel == native {
		cmd = with(command(ctx, told, "bash", filepath.Join(dir, "worker"), dir, vm.mark), "PATH="+programs()+":"+os.Getenv("PATH"))
		vm.port = 5000
	}
	if err := vm.start(cmd); err != nil {
		cancel()
		return nil, err
	}
	if err := vm.ready(ctx); err != nil {
		vm.kill()
		return nil, err
	}
	return vm, nil
}

func (vm *testVM) start(cmd *exec.Cmd) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	vm.in = in
	if err := cmd.Start(); err != nil {
		return err
	}

	go func() {
		defer close(vm.ended)
		defer vm.told.Close()
		vm.read(out)
		_ = cmd.Wait() // a VM that ends too early is seen by who waits for its lines
	}()
	return nil
}

// read passes on what the VM says, line by line; very long lines come in pieces.
func (vm *testVM) read(out io.Reader) {
	defer close(vm.lines)
	r := bufio.NewReaderSize(out, 64<<10)
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 {
			vm.lines <- string(line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// ready waits until the worker answers.
func (vm *testVM) ready(ctx context.Context) error {
	timer := time.NewTimer(bootTime)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-vm.lines:
			if !ok {
				return errGone
			}
			if strings.TrimSpace(line) == vm.mark+" ready" {
				return nil
			}
		case <-timer.C:
			return fmt.Errorf("it did not come up within %v", bootTime)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// do runs a command in the VM. Each line that it prints is passed to said. It
// returns the exit status; an error means that the VM is of no use any more.
func (vm *testVM) do(ctx context.Context, command string, within time.Duration, said func(string)) (int, error) {
	if strings.Contains(command, "\n") {
		return 0, errors.New("a command of more than one line")
	}
	if _, err := io.WriteString(vm.in, command+"\n"); err != nil {
		return 0, errGone
	}

	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-vm.lines:
			if !ok {
				return 0, errGone
			}
			if status, ok := strings.CutPrefix(strings.TrimSpace(line), vm.mark+" end "); ok {
				return strconv.Atoi(status)
			}
			said(line)
		case <-timer.C:
			return 0, fmt.Errorf("not done within %v", within)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// tell gives the running command a line on its standard input.
func (vm *testVM) tell(line string) {
	_, _ = io.WriteString(vm.in, line+"\n")
}

// end lets the VM power off.
func (vm *testVM) end() {
	_ = vm.in.Close()
	timer := time.NewTimer(endTime)
	defer timer.Stop()
	for {
		select {
		case _, ok := <-vm.lines:
			if !ok {
				vm.kill()
				return
			}
		case <-timer.C:
			vm.kill()
			return
		}
	}
}

// kill ends the VM at once.
func (vm *testVM) kill() {
	vm.cancel()
	for range vm.lines {
	}
	<-vm.ended
}

// freePort is a port of 127.0.0.1 that nobody has now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
