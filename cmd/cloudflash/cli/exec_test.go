package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExec(t *testing.T) {
	odd := strings.Repeat("\x01", 90000) // six times as long in JSON
	tests := map[string]struct {
		in   string
		args []string
		want result
	}{
		"input and output":     {"hello\n", []string{"db", "--", "cat"}, result{"hello\n", "done\n", 0}},
		"much of both":         {strings.Repeat("0123456789abcdef", 20000), []string{"db", "cat"}, result{strings.Repeat("0123456789abcdef", 20000), "done\n", 0}},
		"environment":          {"", []string{"-e", "A=b", "--workdir", "/tmp", "db", "env", "-e", "x"}, result{"map[A:b] /tmp [-e x] false\n", "", 0}},
		"its own exit code":    {"", []string{"db", "exit", "42"}, result{"", "", 42}},
		"killed":               {"", []string{"db", "kill", "SIGTERM"}, result{"", "error: killed by SIGTERM\n", 143}},
		"a real-time signal":   {"", []string{"db", "kill", "SIG34"}, result{"", "error: killed by SIG34\n", 162}},
		"an unknown signal":    {"", []string{"db", "kill", "SIGFOO"}, result{"", "error: killed by SIGFOO\n", 1}},
		"much that is escaped": {"", []string{"db", "env", odd}, result{"map[]  [" + odd + "] false\n", "", 0}},
		"too much": {"", []string{"db", "env", odd, odd}, result{"",
			"error: the command and its variables are 1080040 bytes as JSON, the agent takes 1048576\n", 2}},
		"bytes": {"", []string{"db", "echo", "caf\xe9"}, result{"",
			"error: argument 5, \"caf\\xe9\", is not UTF-8: names, commands and variables are text\n", 2}},
		"command not found":    {"", []string{"db", "nonsense"}, result{"", "error: command not found: nonsense\n", 127}},
		"no such VM":           {"", []string{"nope", "cat"}, result{"", "error: vm \"nope\" not found\n", 3}},
		"no command":           {"", []string{"db"}, result{"", "error: cloudflash vm exec needs a VM and a command; usage: cloudflash vm exec VM -- COMMAND [ARG]... [flags]\n", 2}},
		"a variable without =": {"", []string{"-e", "A", "db", "cat"}, result{"", "error: --env takes KEY=VALUE, not \"A\"\n", 2}},
		"no agent":             {"", []string{"--host", "http://127.0.0.1:1", "db", "cat"}, result{"", "error: cannot reach the agent at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused\nhint: is it running? sudo cloudflash serve\n", 7}},
		"not logged in":        {"", []string{"--host", "TCP", "db", "cat"}, result{"", "error: log in first\n", 6}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := withVMs(t)
			r.agent.Has.VMs[0].Name = "db"
			out, errOut := newBuffer(), newBuffer()
			args := append([]string{"vm", "exec"}, tt.args...)
			for i := range args {
				if args[i] == "TCP" {
					args[i] = r.tcp
				}
			}
			p := process(args, map[string]string{"CLOUDFLASH_HOST": r.unix})
			p.In, p.Out, p.Err = strings.NewReader(tt.in), out, errOut
			got := result{Code: Main(context.Background(), p)}
			got.Out, got.Err = out.String(), errOut.String()
			if i := strings.Index(got.Err, "\nhint: "); i >= 0 && !strings.Contains(tt.want.Err, "hint") {
				got.Err = got.Err[:i+1]
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
