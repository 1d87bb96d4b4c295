package cli

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// everyCommand calls fn for all commands, help included.
func everyCommand(fn func(c *cobra.Command)) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		fn(c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(fullRoot())
}

func fullRoot() *cobra.Command {
	root := (&app{}).root()
	root.InitDefaultHelpCmd() // cobra does that as it runs
	return root
}

func TestTheTree(t *testing.T) {
	var got []string
	everyCommand(func(c *cobra.Command) {
		if !c.HasSubCommands() {
			got = append(got, strings.TrimPrefix(c.CommandPath(), "cloudflash "))
		}
	})
	want := strings.Split("api,autoscale events,autoscale policy,autoscale set,autoscale status,cloudlet cancel,cloudlet list,cloudlet logs,cloudlet run,cloudlet show,cloudlet submit,cloudlet wait,"+
		"completion bash,completion fish,completion zsh,events,help,host check,host info,login,mem map,mem owners,mem processes,mem scan,mem summary,recommend apply,recommend undo,serve,token create,token list,token revoke,top,version,"+
		"vm create,vm delete,vm exec,vm freeze,vm list,vm set,vm show,vm thaw,vm top,vm wait", ",")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	r := newRig(t)
	everyCommand(func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())[1:]
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || strings.Contains(c.Short, "\n") {
			t.Errorf("%s: its short text is %q", c.CommandPath(), c.Short)
		}
		if c.HasSubCommands() != strings.Contains(r.run(append(path, "--help")...).Out, "Available Commands:") {
			t.Errorf("%s --help: commands are missing or made up", c.CommandPath())
		}
		help := r.run(append([]string{"help"}, path...)...)
		if help.Code != 0 || !strings.HasPrefix(help.Out, c.Short) || !strings.Contains(help.Out, c.UseLine()) {
			t.Errorf("help %s: %+v", c.CommandPath(), help)
		}
		if c.Name() == "serve" {
			return // has flags of its own
		}
		if got := r.run(append(path, "--help")...); got != help {
			t.Errorf("%s --help is not help %s:\n%s", c.CommandPath(), c.CommandPath(), cmp.Diff(help, got))
		}
		for name, arg := range map[string]bool{"VM": true, "CLOUDLET": true, "NAME": false, "TOKEN": false} {
			if arg && strings.Contains(c.Use, " "+name) && c.ValidArgsFunction == nil {
				t.Errorf("%s takes a %s and completes none", c.CommandPath(), name)
			}
		}
	})
	if got := r.requests(); len(got) > 0 {
		t.Errorf("help asks the agent: %v", got)
	}
}

func TestExamplesParse(t *testing.T) {
	n := 0
	everyCommand(func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			line, ok := strings.CutPrefix(strings.TrimSpace(line), "cloudflash ")
			if !ok {
				continue // a line for the shell
			}
			n++
			args := words(line)
			found, rest, err := fullRoot().Find(args)
			if err != nil || found.CommandPath() != c.CommandPath() {
				t.Errorf("example %q of %s is of %s, %v", line, c.CommandPath(), found.CommandPath(), err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("example %q: %v", line, err)
			} else if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("example %q: %v", line, err)
			}
		}
	})
	if n < 5 {
		t.Errorf("%d examples", n)
	}
}

// words splits a command line whose quotes are single, up to a redirection.
func words(line string) []string {
	line, _, _ = strings.Cut(line, " > ")
	line, _, _ = strings.Cut(line, " | ")
	var all []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}

func TestCompletionScripts(t *testing.T) {
	r := newRig(t)
	for shell, want := range map[string]string{"bash": "complete -o default -F __start_cloudflash cloudflash", "zsh": "#compdef cloudflash", "fish": "complete -c cloudflash"} {
		got := r.run("completion", shell)
		if got.Code != 0 || got.Err != "" || !strings.Contains(got.Out, want) {
			t.Errorf("completion %s: exit code %d, %q, %d bytes without %q", shell, got.Code, got.Err, len(got.Out), want)
		}
	}
}

func TestNamesAreCompleted(t *testing.T) {
	r := withAll(t)
	for args, want := range map[string]string{
		"vm show ":                     "db\nweb\n:4\n",
		"vm delete db ":                "db\nweb\n:4\n",
		"autoscale set db idle ":       "after=\nnotice=\nmin-vms=\n:6\n",
		"autoscale set db cpus max=4 ": "mode=\nup=\ndown=\ncooldown=\nwindow=\ntarget=\nmargin=\nstep=\nmin=\nmax=\n:6\n",
		"autoscale status ":            "db\nweb\n:4\n",
		"cloudlet logs ":               "etl\nhog\nnext\n:4\n",
		"vm fr":                        "freeze\tStop all cloudlets of VMs where they stand\n:4\n",
	} {
		if got := r.run(append([]string{"__complete"}, strings.Split(args, " ")...)...); got.Out != want || got.Code != 0 {
			t.Errorf("%q: %+v, want %q", args, got, want)
		}
	}
	if got := r.over("unix:///nix", "", "__complete", "vm", "show", ""); got.Out != ":4\n" {
		t.Errorf("without an agent: %+v", got)
	}
}

func TestCompletionDoesNotHang(t *testing.T) {
	dir, err := os.MkdirTemp("", "cf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s")) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	began := time.Now()
	got := newRig(t).start(context.Background(), map[string]string{"CLOUDFLASH_HOST": "unix://" + filepath.Join(dir, "s")}, "__complete", "vm", "show", "").wait()
	if took := time.Since(began); got.Out != ":4\n" || took > 3*time.Second {
		t.Errorf("after %s: %+v", took, got)
	}
}
