package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/cloudlet"
	"cloudflash/cmd/quantity"
	"github.com/spf13/cobra"
)

func (a *app) cloudletCommand() *cobra.Command {
	return group("cloudlet", "Run commands in VMs", a.cloudletSubmit(), a.cloudletRun(), a.cloudletList(), a.cloudletShow(),
		a.cloudletLogs(), a.cloudletCancel(), a.cloudletWait())
}

func cloudletName(c agent.Cloudlet) string { return c.Name }

var cloudletColumns = []column[agent.Cloudlet]{
	{"NAME", false, func(c agent.Cloudlet) string { return c.Name }},
	{"VM", false, func(c agent.Cloudlet) string { return c.VMName }},
	{"STATE", false, func(c agent.Cloudlet) string { return string(c.State) }},
	{"SLA", false, func(c agent.Cloudlet) string { return strconv.Itoa(c.SLA) }},
	{"DEADLINE", false, deadlineText},
	{"CPU TIME", false, func(c agent.Cloudlet) string { return fmt.Sprintf("%.2fs", c.Usage.CPUSeconds) }},
	{"PEAK", false, func(c agent.Cloudlet) string { return quantity.FormatBytes(c.Usage.MemoryPeakBytes) }},
	{"ELAPSED", false, elapsed},
	{"EXIT", false, exitText},
	{"REASON", false, func(c agent.Cloudlet) string { return c.Reason }},
	{"ID", true, func(c agent.Cloudlet) string { return c.ID }},
	{"READ", true, func(c agent.Cloudlet) string { return quantity.FormatBytes(c.Usage.ReadBytes) }},
	{"WRITTEN", true, func(c agent.Cloudlet) string { return quantity.FormatBytes(c.Usage.WrittenBytes) }},
	{"PID", true, func(c agent.Cloudlet) string { return strconv.Itoa(c.PID) }},
	{"ARGV", true, func(c agent.Cloudlet) string { return fmt.Sprintf("%q", c.Argv) }},
}

func deadlineText(c agent.Cloudlet) string {
	switch {
	case c.DeadlineAt == nil:
		return "-"
	case c.OverrunSeconds > 0:
		return fmt.Sprintf("missed by %.1fs", c.OverrunSeconds)
	case c.FinishedAt != nil && c.State != agent.CloudletSucceeded:
		return "-"
	case c.FinishedAt != nil:
		return fmt.Sprintf("met, %.1fs left", c.DeadlineAt.Sub(*c.FinishedAt).Seconds())
	}
	left := time.Until(*c.DeadlineAt).Seconds()
	if left < 0 {
		return fmt.Sprintf("overdue by %.1fs", -left)
	}
	return fmt.Sprintf("in %.1fs", left)
}

func elapsed(c agent.Cloudlet) string {
	if c.StartedAt == nil {
		return "-"
	}
	end := time.Now()
	if c.FinishedAt != nil {
		end = *c.FinishedAt
	}
	return fmt.Sprintf("%.1fs", end.Sub(*c.StartedAt).Seconds())
}

func exitText(c agent.Cloudlet) string {
	switch {
	case c.ExitCode != nil:
		return strconv.Itoa(*c.ExitCode)
	case c.Signal != "":
		return c.Signal
	}
	return "-"
}

// submission is the flags of submit and run.
type submission struct {
	name, vm, onDeadline, workdir string
	cpus, memory                  string
	env                           []string
	sla                           int
	deadline, duration            time.Duration
}

func (s *submission) flags(c *cobra.Command) {
	f := c.Flags()
	f.SetInterspersed(false) // what follows the command is the command's
	f.StringVar(&s.name, "name", "", "name, unique among those that have not ended")
	f.StringVar(&s.vm, "vm", "", "VM to run in; left out, the scheduler chooses")
	f.IntVar(&s.sla, "sla", agent.SLAMedium, "priority: 1 low, 2 medium, 3 high")
	f.DurationVar(&s.deadline, "deadline", 0, "be done within, such as 60s")
	f.StringVar(&s.onDeadline, "on-deadline", agent.OnDeadlineKill, "kill, or continue and record the overrun")
	f.StringArrayVarP(&s.env, "env", "e", nil, "NAME=VALUE, repeatable")
	f.StringVar(&s.workdir, "workdir", "", "directory in the VM (/data)")
	f.StringVar(&s.cpus, "cpus", "", "cores that it needs of its VM")
	f.StringVar(&s.memory, "memory", "", "memory that it needs of its VM")
	f.DurationVar(&s.duration, "duration", 0, "how long the built-in burn runs when there is no command")
}

func (s *submission) body(argv []string) (map[string]any, error) {
	body := map[string]any{"sla": s.sla, "on_deadline": s.onDeadline}
	for field, v := range map[string]string{"name": s.name, "vm": s.vm, "workdir": s.workdir} {
		if v != "" {
			body[field] = v
		}
	}
	if len(argv) > 0 {
		body["argv"] = argv
	}
	if s.deadline != 0 {
		body["deadline_seconds"] = s.deadline.Seconds()
	}
	if s.duration != 0 {
		body["duration_seconds"] = s.duration.Seconds()
	}
	if env, err := pairs("--env", s.env); err != nil {
		return nil, err
	} else if env != nil {
		body["env"] = env
	}
	request := map[string]any{}
	if s.cpus != "" {
		n, err := quantity.CPUs(s.cpus)
		if err != nil {
			return nil, usage("--cpus: %v", err)
		}
		request["cpus"] = n
	}
	if s.memory != "" {
		n, err := quantity.Bytes(s.memory)
		if err != nil {
			return nil, usage("--memory: %v", err)
		}
		request["memory_bytes"] = n
	}
	if len(request) > 0 {
		body["request"] = request
	}
	return body, nil
}

func (a *app) cloudletSubmit() *cobra.Command {
	var s submission
	c := &cobra.Command{Use: "submit [OPTION]... [--] [CMD [ARG]...]", Short: "Queue a command and return at once",
		Long: "Queue a command and return at once.\n" +
			"A cloudlet ends with its command: what that leaves running is killed, so a server has to stay in the foreground.",
		Example: "  cloudflash cloudlet submit --vm web --sla 3 --deadline 60s -- xz -9 /data/big",
		RunE: func(c *cobra.Command, args []string) error {
			out, err := a.submit(c.Context(), s, args)
			if err != nil {
				return err
			}
			return printOne(a, out, cloudletName, cloudletColumns)
		}}
	s.flags(c)
	return c
}

func (a *app) submit(ctx context.Context, s submission, argv []string) (agent.Cloudlet, error) {
	var out agent.Cloudlet
	body, err := s.body(argv)
	if err != nil {
		return out, err
	}
	return out, a.client().create(ctx, "/cloudlets", body, &out, a.Err)
}

func (a *app) cloudletRun() *cobra.Command {
	var s submission
	c := &cobra.Command{Use: "run [OPTION]... [--] [CMD [ARG]...]", Short: "Run a command, show its output, exit with its code",
		Long: "Run a command, show its output, exit with its code.\n" +
			"It waits in the queue until a VM has room, and reads no input: vm exec does.\n" +
			"A cloudlet ends with its command: what that leaves running is killed, so a server has to stay in the foreground.",
		Example: "  cloudflash cloudlet run --vm web -- sh -c 'hostname; exit 3'",
		RunE: func(c *cobra.Command, args []string) error {
			out, err := a.submit(c.Context(), s, args)
			if err != nil {
				return err
			}
			return a.attach(c.Context(), out.ID)
		}}
	s.flags(c)
	return c
}

// attach shows the output of a cloudlet until it has ended and returns its code.
// The first interrupt cancels it, the second leaves it behind.
func (a *app) attach(ctx context.Context, id string) error {
	client := a.client()
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	pipes := make(chan os.Signal, 1) // a closed pipe is an error of the write then
	signal.Notify(pipes, syscall.SIGPIPE)
	defer signal.Stop(pipes)
	var unseen [2]error
	unread := make(chan struct{}, 2)
	for i, w := range []io.Writer{a.Out, a.Err} {
		q := url.Values{"stream": {[]string{"stdout", "stderr"}[i]}, "follow": {"true"}}
		wg.Go(func() {
			unseen[i] = a.copyOutput(own, client, id, q, w)
			if errors.Is(unseen[i], syscall.EPIPE) {
				unread <- struct{}{}
			}
		})
	}
	go a.sayQueued(own, client, id)
	end := make(chan error, 1)
	var last agent.Cloudlet
	go func() { // ends with own
		var err error
		last, err = a.waitFor(own, client, id)
		end <- err
	}()
	select {
	case err := <-end:
		if err != nil {
			return err
		}
	case <-unread:
		var c agent.Cloudlet
		if err := client.get(own, "/cloudlets/"+ref(id), nil, &c); err == nil && !c.State.Final() {
			fmt.Fprintf(a.Err, "nobody reads the output any more; cloudlet %s runs on, see cloudflash cloudlet logs -f %[1]s\n", clean(c.Name))
		}
		return &exit{128 + int(syscall.SIGPIPE), ""}
	case <-ctx.Done():
		again := make(chan os.Signal, 1) // ahead of the request, which may hang
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(again)
		fmt.Fprintln(a.Err, "cancelling; interrupt again to leave it behind")
		go func() { _ = client.call(own, "DELETE", "/cloudlets/"+id, nil, nil, nil) }() // it may have ended just now
		select {
		case err := <-end:
			if err != nil {
				return err
			}
		case <-again:
			return &exit{130, ""}
		}
	}
	wg.Wait()
	return cmp.Or(a.runCode(last), unseen[0], unseen[1])
}

// sayQueued tells why nothing is to be seen when a cloudlet has not started after
// a second.
func (a *app) sayQueued(ctx context.Context, client *client, id string) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(time.Second):
	}
	var c agent.Cloudlet
	if err := client.get(ctx, "/cloudlets/"+ref(id), nil, &c); err == nil && c.State == agent.CloudletQueued {
		fmt.Fprintf(a.Err, "cloudlet %s is queued: %s\n", clean(c.Name), clean(c.Reason))
	}
}

// runCode turns the end of a cloudlet into an exit code, with a line on
// standard error where the code alone does not tell.
func (a *app) runCode(c agent.Cloudlet) error {
	if c.State != agent.CloudletSucceeded && c.Reason != "" && (c.ExitCode == nil || c.State != agent.CloudletFailed || *c.ExitCode >= 125) {
		fmt.Fprintf(a.Err, "cloudlet %s %s: %s\n", clean(c.Name), c.State, clean(c.Reason))
	}
	if c.LeftRunning > 0 {
		fmt.Fprintf(a.Err, "cloudlet %s: %s; a cloudlet ends with its command\n", clean(c.Name), cloudlet.LeftText(c.LeftRunning))
	}
	switch {
	case c.State == agent.CloudletDeadlineExceeded:
		return &exit{ExitDeadline, ""}
	case cloudlet.SignalNumber(c.Signal) != 0:
		return &exit{128 + int(cloudlet.SignalNumber(c.Signal)), ""}
	case c.ExitCode != nil && *c.ExitCode != 0:
		return &exit{*c.ExitCode, ""}
	case c.State != agent.CloudletSucceeded:
		return &exit{ExitFailure, ""}
	}
	return nil
}

// waitFor waits until a cloudlet has ended, also where the agent is started again meanwhile.
func (a *app) waitFor(ctx context.Context, client *client, id string) (agent.Cloudlet, error) {
	for {
		var c agent.Cloudlet
		ask := func() error { return client.get(ctx, "/cloudlets/"+ref(id), url.Values{"wait": {"30s"}}, &c) }
		err := ask()
		if cutOff(err) {
			err = client.again(ctx, io.Discard, ask) // without a word: nothing is lost by it
		}
		if err != nil || c.State.Final() {
			return c, err
		}
	}
}

// copyOutput copies a stream of a cloudlet to its end. Where the connection is cut, because
// the agent is started again or was not read from for long, it goes on where it was.
func (a *app) copyOutput(ctx context.Context, client *client, id string, q url.Values, w io.Writer) error {
	var p outputPart
	ask := func() (err error) {
		p, err = copyPart(ctx, client, id, q, w)
		return err
	}
	err := ask()
	lost := int64(0)
	for at := int64(-1); err == nil; err = client.again(ctx, io.Discard, ask) {
		if at >= 0 || !q.Has("tail") {
			lost += p.from - max(at, 0)
		}
		lost += p.skipped
		if !errors.Is(p.err, io.ErrUnexpectedEOF) && !errors.Is(p.err, syscall.ECONNRESET) {
			return cmp.Or(p.err, gapError(lost, q.Get("stream")))
		}

		at = p.from + p.skipped + p.copied
		q = with(q, q.Get("stream"))
		q.Del("tail")
		q.Set("offset", strconv.FormatInt(at, 10))
	}
	return err
}

// outputPart is what came over one connection, in bytes of the output.
type outputPart struct {
	from, copied, skipped int64
	err                   error // how the copy ended
}

// copyPart copies what comes over one connection. The error is that of the request.
func copyPart(ctx context.Context, client *client, id string, q url.Values, w io.Writer) (p outputPart, err error) {
	resp, err := client.open(ctx, "GET", "/cloudlets/"+ref(id)+"/output", q, nil)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	p.from, _ = strconv.ParseInt(resp.Header.Get("X-Output-Offset"), 10, 64)
	p.copied, p.err = io.Copy(w, resp.Body)
	p.skipped, _ = strconv.ParseInt(resp.Trailer.Get("X-Output-Gap"), 10, 64)
	return p, nil
}

// gapError says what of an output nobody will see, so that it does not pass for whole.
func gapError(lost int64, stream string) error {
	if lost <= 0 {
		return nil
	}
	return &exit{ExitFailure, fmt.Sprintf("%s is not whole: %d bytes were not kept, only the newest part of a long output is", stream, lost)}
}

// errStreamClosed is what a follower learns of an agent that ends.
func errStreamClosed() error { return &exit{ExitUnreachable, "the agent has closed the stream"} }

func (a *app) cloudletList() *cobra.Command {
	var vm, state string
	c := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List cloudlets, newest first", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if vm != "" {
				q.Set("vm", vm)
			}
			if state != "" {
				q.Set("state", state)
			}
			all, err := list[agent.Cloudlet](c.Context(), a.client(), "/cloudlets", q)
			if err != nil {
				return err
			}
			return printList(a, all, cloudletName, cloudletColumns)
		}}
	c.Flags().StringVar(&vm, "vm", "", "only those of a VM")
	c.Flags().StringVar(&state, "state", "", "only those in a state")
	return c
}

func (a *app) cloudletShow() *cobra.Command {
	return &cobra.Command{Use: "show CLOUDLET", Short: "Show a cloudlet, by name or id", Args: exactly(1, "a cloudlet"), ValidArgsFunction: a.completeCloudlets,
		RunE: func(c *cobra.Command, args []string) error {
			var v agent.Cloudlet
			if err := a.client().get(c.Context(), "/cloudlets/"+ref(args[0]), nil, &v); err != nil {
				return err
			}
			if a.output == "table" {
				return encodeYAML(a.Out, v)
			}
			return printOne(a, v, cloudletName, cloudletColumns)
		}}
}

func (a *app) cloudletLogs() *cobra.Command {
	var follow bool
	var stream string
	var tail int
	c := &cobra.Command{Use: "logs CLOUDLET", Short: "Show what a cloudlet has written", Args: exactly(1, "a cloudlet"), ValidArgsFunction: a.completeCloudlets,
		RunE: func(c *cobra.Command, args []string) error {
			client := a.client()
			q := url.Values{"follow": {strconv.FormatBool(follow)}}
			if tail >= 0 {
				q.Set("tail", strconv.Itoa(tail))
			}
			if stream != "both" {
				q.Set("stream", stream)
				return a.copyOutput(c.Context(), client, args[0], q, a.Out)
			}
			var wg sync.WaitGroup
			var outErr, errErr error
			wg.Go(func() { outErr = a.copyOutput(c.Context(), client, args[0], with(q, "stdout"), a.Out) })
			wg.Go(func() { errErr = a.copyOutput(c.Context(), client, args[0], with(q, "stderr"), a.Err) })
			wg.Wait()
			if outErr != nil {
				return outErr
			}
			return errErr
		}}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until it has ended")
	c.Flags().StringVar(&stream, "stream", "both", "stdout, stderr or both")
	c.Flags().IntVar(&tail, "tail", -1, "only the last so many lines of each stream; -1 for all")
	return c
}

func with(q url.Values, stream string) url.Values {
	out := url.Values{"stream": {stream}}
	for k, v := range q {
		out[k] = v
	}
	return out
}

func (a *app) cloudletCancel() *cobra.Command {
	return &cobra.Command{Use: "cancel CLOUDLET...", Short: "End cloudlets: SIGTERM, and SIGKILL 5 s later", Args: atLeast(1, "a cloudlet"), ValidArgsFunction: a.completeCloudlets,
		RunE: func(c *cobra.Command, args []string) error {
			var all []agent.Cloudlet
			for _, name := range args {
				var v agent.Cloudlet
				if err := a.client().call(c.Context(), "DELETE", "/cloudlets/"+ref(name), nil, nil, &v); err != nil {
					return err
				}
				all = append(all, v)
			}
			return printList(a, all, cloudletName, cloudletColumns)
		}}
}

func (a *app) cloudletWait() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{Use: "wait CLOUDLET...", Short: "Wait until cloudlets have ended", Args: atLeast(1, "a cloudlet"), ValidArgsFunction: a.completeCloudlets,
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			var all []agent.Cloudlet
			code := ExitOK
			for _, name := range args {
				v, err := a.waitFor(ctx, a.client(), name)
				if ctx.Err() != nil && c.Context().Err() == nil {
					return &exit{ExitTimeout, fmt.Sprintf("cloudlet %s has not ended after %s", clean(name), timeout)}
				}
				if err != nil {
					return err
				}
				switch {
				case v.State == agent.CloudletDeadlineExceeded:
					code = max(code, ExitDeadline)
				case v.State != agent.CloudletSucceeded:
					code = max(code, ExitFailure)
				}
				all = append(all, v)
			}
			if err := printList(a, all, cloudletName, cloudletColumns); err != nil || code == ExitOK {
				return err
			}
			return &exit{code, ""}
		}}
	c.Flags().DurationVar(&timeout, "timeout", 0, "give up after this long (exit code 8); 0 is never")
	return c
}

func (a *app) completeCloudlets(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return complete(a, c, "/cloudlets", cloudletName)
}
