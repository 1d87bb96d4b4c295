// Command cloudflash-init is PID 1 of a VM. The agent starts it in new user,
// pid, mount, net, uts and ipc namespaces; it builds the VM's root file system,
// starts processes on the agent's request, reaps them and every orphan, and
// writes each exit to a journal before it tells anyone. It outlives the agent:
// a new one connects to the same socket and finds everything as it was.
//
// It imports little and keeps still: an idle init has under 1 MiB of private
// memory and no timer. It must go on working when a fork bomb in the VM has used
// up all process ids, so it makes the threads it needs at its start.
//
// The cgroup namespace is made for each process, not here: with the mount option
// nsdelegate a process may only be born inside its creator's cgroup namespace,
// and the one of init would not hold the scopes beside it.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"unsafe"

	"cloudflash/agent/guest/wire"
	"golang.org/x/sys/unix"
)

func main() {
	debug.SetGCPercent(-1) // collected by hand, see server.tidy; a timer would wake an idle VM
	if os.Getpid() != 1 {
		die("cloudflash-init is started by the agent, as PID 1 of a VM")
	}
	rename()
	ignoreSignals()
	must("hide from the VM", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
	unix.CloseOnExec(wire.ListenerFD)
	unix.CloseOnExec(wire.JournalFD)
	_ = unix.Close(wire.SelfFD)
	warmUp()

	s := &server{procs: map[string]*proc{}, exits: map[string]wire.Exit{}, forked: make(chan struct{}, 1), conn: -1}
	go s.reap()
	for {
		conn, _, err := unix.Accept4(wire.ListenerFD, unix.SOCK_CLOEXEC)
		if err != nil {
			if err == unix.EINTR || err == unix.ECONNABORTED {
				continue
			}
			must("accept", err)
		}
		s.serve(conn)
	}
}

// rename gives the process its name back: it was executed by descriptor. The
// file belongs to the thread group's leader, which may not be this thread.
func rename() {
	if fd, err := unix.Open("/proc/self/comm", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.Write(fd, []byte("cloudflash-init"))
		_ = unix.Close(fd)
	}
}

// ignoreSignals takes back the handlers of the Go runtime. Signals from inside
// the VM reach its PID 1 only where there is a handler (pid_namespaces(7)): one
// of the runtime's would end the process. Real faults still kill it.
func ignoreSignals() {
	var action [4]uint64 // struct sigaction of the kernel: SIG_DFL
	for sig := uintptr(1); sig <= 64; sig++ {
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
}

// threads are as many as the runtime ever wants: one that waits for requests, one that
// waits for children, one that runs, and one to spare for the collector.
const threads = 4

// warmUp makes the threads that the runtime will want: each goroutine that blocks in the
// kernel needs one more, and one that cannot be made ends the process. They are tied to
// goroutines that wait for each other, so that there are as many even where the machine
// is too busy for the runtime to notice that one blocks. Idle threads stay for ever.
func warmUp() {
	var there, gone sync.WaitGroup
	there.Add(threads)
	for range threads {
		gone.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread() // or it would end with the goroutine
			there.Done()
			there.Wait()
		})
	}
	gone.Wait()
	runtime.GC()
	debug.FreeOSMemory()
}

func must(what string, err error) {
	if err != nil {
		die(what + ": " + err.Error())
	}
}

// die ends the VM. Standard error is a log file beside the socket.
func die(msg string) {
	_, _ = os.Stderr.WriteString("cloudflash-init: " + msg + "\n")
	os.Exit(1)
}
