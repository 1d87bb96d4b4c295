// Package cli is the command line of CloudFlash: verbs over the REST API. It
// prints tables for people and JSON, YAML or CSV for programs, and exits with a
// code that scripts can branch on.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"cloudflash/agent"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitConflict    = 4
	ExitCapacity    = 5
	ExitAuth        = 6
	ExitUnreachable = 7
	ExitTimeout     = 8
	ExitDeadline    = 9
)

// Process is everything the command line has of the outside.
type Process struct {
	Args     []string
	Env      func(string) string
	In       io.Reader
	Out, Err io.Writer
	Version  string
	Serve    func(ctx context.Context, args []string, env func(string) string, out io.Writer) error
}

// exit is an error that carries its exit code. An empty text prints nothing.
type exit struct {
	code int
	text string
}

func (e *exit) Error() string { return e.text }

func usage(format string, args ...any) error {
	return &exit{ExitUsage, fmt.Sprintf(format, args...)}
}

// Usage marks an error as one of how the program was called.
func Usage(err error) error { return usage("%v", err) }

// Main runs one command and returns its exit code.
func Main(ctx context.Context, p Process) int {
	out := &output{w: p.Out}
	a := &app{Process: p, terminal: isTerminal(p.Out)}
	a.Out = out
	root := a.root()
	root.SetArgs(p.Args)
	root.SetIn(p.In)
	root.SetOut(a.Out)
	root.SetErr(p.Err)
	err := areText(p.Args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		err = out.failure()
	}
	return a.report(err)
}

// areText refuses what JSON, and with it the API, could not carry unchanged.
func areText(args []string) error {
	if len(args) > 0 && args[0] == "serve" { // its paths are files of this host
		return nil
	}
	for i, arg := range args {
		if !utf8.ValidString(arg) {
			return usage("argument %d, %.100q, is not UTF-8: names, commands and variables are text", i+1, arg)
		}
	}
	return nil
}

// output remembers that something could not be written, so that a full disk
// does not pass for success.
type output struct {
	w   io.Writer
	mu  sync.Mutex
	err error
}

// Write writes, until it has failed once.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	if err != nil {
		o.err = fmt.Errorf("write the output: %w", err)
	}
	return n, o.err
}

func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// app is one run of the command line.
type app struct {
	Process
	host, output string
	noHeaders    bool
	terminal     bool // Out is one
	agent        *client
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "cloudflash",
		Short:         "VMs that are cgroup slices, cloudlets that are real processes",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("unknown command %q; cloudflash --help lists them", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.Version = a.Version
	root.SetVersionTemplate("{{.Version}}\n")
	f := root.PersistentFlags()
	f.StringVar(&a.host, "host", "", "agent to talk to: unix:///path or http(s)://host:port (CLOUDFLASH_HOST)")
	f.StringVarP(&a.output, "output", "o", "table", "table, wide, json, jsonl, yaml, csv or name")
	f.BoolVar(&a.noHeaders, "no-headers", false, "tables without their first line")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%v; %s --help lists the flags", err, c.CommandPath())
	})
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.checkOutput() }
	root.AddCommand(a.serveCommand(), a.vmCommand(), a.cloudletCommand(), a.memCommand(), a.autoscaleCommand(), a.recommendCommand(), a.eventsCommand(), a.hostCommand(),
		a.tokenCommand(), a.loginCommand(), a.topCommand(), a.apiCommand(), a.completionCommand(), a.versionCommand())
	root.SetHelpCommand(helpCommand())
	return root
}

// report prints an error and turns it into an exit code.
func (a *app) report(err error) int {
	if err == nil {
		return ExitOK
	}
	var e *exit
	if errors.As(err, &e) {
		if e.text != "" {
			fmt.Fprintln(a.Err, "error:", e.text)
		}
		return e.code
	}
	var p *problemError
	if errors.As(err, &p) {
		p.print(a.Err)
		return p.exitCode()
	}
	if errors.Is(err, context.Canceled) {
		return 130
	}
	if errors.Is(err, syscall.EPIPE) {
		return 128 + int(syscall.SIGPIPE) // whoever reads has had enough: no word
	}
	fmt.Fprintln(a.Err, "error:", err)
	if strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag") {
		return ExitUsage
	}
	return ExitFailure
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage("unknown command %q; %s --help lists them", args[0], c.CommandPath())
		}
		return c.Help()
	}}
	c.AddCommand(commands...)
	return c
}

// atLeast and exactly check the number of arguments and say what is missing.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < n {
			return usage("%s needs %s; usage: %s", c.CommandPath(), what, c.UseLine())
		}
		return nil
	}
}

func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s takes %s; usage: %s", c.CommandPath(), what, c.UseLine())
		}
		return nil
	}
}

func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{Use: "serve [OPTION]...", Short: "Run the agent (as root)", DisableFlagParsing: true,
		Long:              "Run the agent (as root) until it is interrupted; VMs and cloudlets run on. cloudflash serve --help lists the options.",
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(c *cobra.Command, args []string) error {
			return a.Serve(c.Context(), args, a.Env, a.Err)
		}}
}

func (a *app) versionCommand() *cobra.Command {
	var client bool
	c := &cobra.Command{Use: "version", Short: "Show the versions of this program and of the agent", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			v := versions{Client: a.Version}
			var err error
			if !client {
				var h agent.Host
				err = a.client().get(c.Context(), "/host", nil, &h)
				v.Agent, v.Kernel = h.Version, h.Kernel
			}
			return errors.Join(a.printVersions(v), err)
		}}
	c.Flags().BoolVar(&client, "client", false, "do not ask the agent")
	return c
}

// versions is what version shows. Without the agent only the first is known.
type versions struct {
	Client string `json:"client"`
	Agent  string `json:"agent,omitempty"`
	Kernel string `json:"kernel,omitempty"`
}

func (a *app) printVersions(v versions) error {
	if a.output != "table" && a.output != "wide" {
		return printOne(a, v, func(v versions) string { return v.Client }, []column[versions]{
			{"CLIENT", false, func(v versions) string { return v.Client }},
			{"AGENT", false, func(v versions) string { return v.Agent }},
			{"KERNEL", false, func(v versions) string { return v.Kernel }},
		})
	}
	fmt.Fprintln(a.Out, "client:", v.Client)
	if v.Agent != "" {
		fmt.Fprintf(a.Out, "agent:  %s on Linux %s\n", clean(v.Agent), clean(v.Kernel))
	}
	return nil
}

// isTerminal asks the kernel: /dev/null is a character device too.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
