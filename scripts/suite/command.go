package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// command is a program that ends, with all it has started, when ctx does.
func command(ctx context.Context, out io.Writer, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// bash runs a script that has what scripts/lib/common has.
func bash(ctx context.Context, out io.Writer, script string, args ...string) *exec.Cmd {
	script = "set -euo pipefail; . scripts/lib/common; " + script
	return command(ctx, out, "bash", append([]string{"-c", script, "test"}, args...)...)
}

// with adds to the environment of a command.
func with(cmd *exec.Cmd, env ...string) *exec.Cmd {
	cmd.Env = append(os.Environ(), env...)
	return cmd
}
