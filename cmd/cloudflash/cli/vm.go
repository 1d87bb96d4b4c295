package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/policy"
	"cloudflash/cmd/quantity"

	"github.com/spf13/cobra"
)

func (a *app) vmCommand() *cobra.Command {
	return group("vm", "Create, resize and delete VMs", a.vmCreate(), a.vmList(), a.vmShow(), a.vmSet(), a.vmDelete(),
		a.vmAction("freeze", "Stop all cloudlets of VMs where they stand"), a.vmAction("thaw", "Let frozen VMs run on"), a.vmExec(), a.vmWait(), a.topOf("top", "Watch what VMs use", true))
}

func vmName(v agent.VM) string { return v.Name }

var vmColumns = []column[agent.VM]{
	{"NAME", false, func(v agent.VM) string { return v.Name }},
	{"STATE", false, func(v agent.VM) string { return string(v.State) }},
	{"CPU", false, func(v agent.VM) string { return fmt.Sprintf("%.2f/%s", v.Usage.CPUs, cpus(v.Limits.CPUs)) }},
	{"MEMORY", false, func(v agent.VM) string {
		return quantity.FormatBytes(v.Usage.MemoryBytes) + "/" + bytesOr(v.Limits.MemoryBytes, "max")
	}},
	{"PIDS", false, func(v agent.VM) string { return fmt.Sprintf("%d/%s", v.Usage.PIDs, number(v.Limits.PIDs)) }},
	{"CLOUDLETS", false, func(v agent.VM) string { return fmt.Sprint(v.Cloudlets) }},
	{"IDLE", false, idleWord},
	{"AGE", false, func(v agent.VM) string { return age(v.CreatedAt) }},
	{"ID", true, func(v agent.VM) string { return v.ID }},
	{"IMAGE", true, func(v agent.VM) string { return v.Image }},
	{"IO", true, func(v agent.VM) string { return ioText(v.Limits.IO) }},
	{"STORAGE", true, func(v agent.VM) string {
		return quantity.FormatBytes(v.Usage.StorageBytes) + "/" + bytesOr(v.Limits.StorageBytes, "max")
	}},
	{"NETWORK", true, func(v agent.VM) string { return v.Network.Mode }},
	{"ADDRESS", true, func(v agent.VM) string { return v.Network.IPv4 }},
	{"RX", true, func(v agent.VM) string { return quantity.FormatBytes(v.Usage.ReceivedBytes) }},
	{"TX", true, func(v agent.VM) string { return quantity.FormatBytes(v.Usage.SentBytes) }},
	{"GPUS", true, func(v agent.VM) string { return fmt.Sprint(len(v.GPUs)) }},
	{"INIT", true, func(v agent.VM) string { return fmt.Sprint(v.InitPID) }},
	{"REASON", true, func(v agent.VM) string { return v.Reason }},
}

// limits are the flags of create and set.
type limits struct {
	cpus, memory, storage, bandwidth string
	rbps, wbps                       string
	riops, wiops, pids               int64
}

func (l *limits) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&l.cpus, "cpus", "", "cores, such as 0.5, 2 or 500m")
	f.StringVar(&l.memory, "memory", "", "memory, such as 512MiB")
	f.StringVar(&l.storage, "storage", "", "storage, such as 10GiB")
	f.StringVar(&l.bandwidth, "bandwidth", "", "network bandwidth each way, such as 100Mbit")
	f.Int64Var(&l.pids, "pids", 0, "most processes and threads")
	f.StringVar(&l.rbps, "io-rbps", "", "bytes read per second, such as 5MiB; 0 for no limit")
	f.StringVar(&l.wbps, "io-wbps", "", "bytes written per second")
	f.Int64Var(&l.riops, "io-riops", 0, "reads per second")
	f.Int64Var(&l.wiops, "io-wiops", 0, "writes per second")
}

// body is the flags that were given, in the words of the API. Of io the others
// keep what old has.
func (l *limits) body(c *cobra.Command, old agent.IO) (map[string]any, error) {
	body := map[string]any{}
	given := c.Flags().Changed
	var err error
	parse := func(flag, field, text string, read func(string) (any, error)) {
		if !given(flag) || err != nil {
			return
		}
		v, perr := read(text)
		if perr != nil {
			err = usage("--%s: %v", flag, perr)
			return
		}
		body[field] = v
	}
	amount := func(s string) (any, error) { return quantity.Bytes(s) }
	parse("cpus", "cpus", l.cpus, func(s string) (any, error) { return quantity.CPUs(s) })
	parse("memory", "memory_bytes", l.memory, amount)
	parse("storage", "storage_bytes", l.storage, amount)
	parse("bandwidth", "bandwidth_bps", l.bandwidth, func(s string) (any, error) { return quantity.Bits(s) })
	if given("pids") {
		body["pids"] = l.pids
	}
	if given("io-rbps") || given("io-wbps") || given("io-riops") || given("io-wiops") {
		io := map[string]any{"rbps": old.ReadBPS, "wbps": old.WriteBPS, "riops": old.ReadIOPS, "wiops": old.WriteIOPS}
		outer := body
		body = io
		parse("io-rbps", "rbps", l.rbps, amount)
		parse("io-wbps", "wbps", l.wbps, amount)
		if given("io-riops") {
			io["riops"] = l.riops
		}
		if given("io-wiops") {
			io["wiops"] = l.wiops
		}
		body = outer
		body["io"] = io
	}
	return body, err
}

func (a *app) vmCreate() *cobra.Command {
	var l limits
	var image, network, autoscale string
	var labels, publish []string
	var gpus int
	var keep bool
	c := &cobra.Command{Use: "create NAME", Short: "Create a VM; it runs when the command returns", Args: exactly(1, "a name"),
		Example: "  cloudflash vm create web --cpus 0.5 --memory 512MiB --pids 256"}
	l.flags(c)
	c.Flags().StringVar(&image, "image", "", "root file system on the agent's host: host (default), or the path of a directory or tar archive")
	c.Flags().StringArrayVar(&labels, "label", nil, "KEY=VALUE, repeatable")
	c.Flags().StringVar(&network, "network", "", "nat: the outside only (default); isolated: loopback only; bridge: also other VMs in this mode")
	c.Flags().StringArrayVar(&publish, "publish", nil, "[IP:]HOSTPORT:PORT[/udp], a port of the host that leads to the VM, repeatable")
	c.Flags().StringVar(&autoscale, "autoscale", "", "off, recommend or auto: whether limits are scaled (as the host's policy says)")
	c.Flags().BoolVar(&keep, "keep", false, "do not delete it when idle")
	c.Flags().IntVar(&gpus, "gpus", 0, "GPUs or MIG instances for this VM alone")
	c.RunE = func(c *cobra.Command, args []string) error {
		body, err := l.body(c, agent.IO{})
		if err != nil {
			return err
		}
		body["name"] = args[0]
		if image != "" {
			body["image"] = image
		}
		if c.Flags().Changed("autoscale") {
			if err := checkMode(autoscale); err != nil {
				return err
			}
			body["autoscale"] = agent.PolicyLayer{Rules: map[string]agent.RuleChange{policy.RuleAll: {Mode: &autoscale}}}
		}
		if c.Flags().Changed("keep") {
			body["keep"] = keep
		}
		if c.Flags().Changed("gpus") {
			body["gpus"] = gpus
		}
		if net, err := networkOf(network, publish); err != nil {
			return err
		} else if len(net) > 0 {
			body["network"] = net
		}
		if m, err := pairs("--label", labels); err != nil {
			return err
		} else if m != nil {
			body["labels"] = m
		}
		var v agent.VM
		if err := a.client().create(c.Context(), "/vms", body, &v, a.Err); err != nil {
			return err
		}
		a.sayFate(v)
		return printOne(a, v, vmName, vmColumns)
	}
	return c
}

// networkOf is the network in a request.
func networkOf(mode string, publish []string) (map[string]any, error) {
	net := map[string]any{}
	if mode != "" {
		net["mode"] = mode
	}
	var ports []agent.Port
	for _, s := range publish {
		p, err := port(s)
		if err != nil {
			return nil, usage("--publish takes [IP:]HOSTPORT:PORT[/udp], not %q: %v", s, err)
		}
		ports = append(ports, p)
	}
	if ports != nil {
		net["publish"] = ports
	}
	return net, nil
}

// port reads [IP:]HOSTPORT:PORT[/PROTOCOL]; an IPv6 address may be in brackets.
func port(s string) (p agent.Port, err error) {
	s, p.Protocol, _ = strings.Cut(s, "/")
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return p, errors.New("a colon is missing")
	}
	host, guest := s[:i], s[i+1:]
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		p.HostIP, host = strings.Trim(host[:i], "[]"), host[i+1:]
	}
	if p.HostPort, err = strconv.Atoi(host); err == nil {
		p.GuestPort, err = strconv.Atoi(guest)
	}
	if err != nil {
		return p, errors.New("a port is a number")
	}
	return p, nil
}

func portText(p agent.Port) string {
	at := ""
	if p.HostIP != "" {
		at = p.HostIP + ":"
		if strings.Contains(p.HostIP, ":") {
			at = "[" + p.HostIP + "]:"
		}
	}
	return fmt.Sprintf("%s%d:%d/%s", at, p.HostPort, p.GuestPort, p.Protocol)
}

// pairs reads KEY=VALUE arguments.
func pairs(flag string, all []string) (map[string]string, error) {
	if len(all) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, s := range all {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, usage("%s takes KEY=VALUE, not %q", flag, s)
		}
		m[k] = v
	}
	return m, nil
}

func (a *app) vmList() *cobra.Command {
	var state string
	c := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List VMs", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if state != "" {
				q.Set("state", state)
			}
			all, err := list[agent.VM](c.Context(), a.client(), "/vms", q)
			if err != nil {
				return err
			}
			return printList(a, all, vmName, vmColumns)
		}}
	c.Flags().StringVar(&state, "state", "", "only VMs in that state")
	return c
}

func (a *app) vmShow() *cobra.Command {
	return &cobra.Command{Use: "show VM", Short: "Show a VM, by name or id", Args: exactly(1, "a VM"), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			var v agent.VM
			if err := a.client().get(c.Context(), "/vms/"+ref(args[0]), nil, &v); err != nil {
				return err
			}
			if a.output == "table" || a.output == "wide" {
				a.describeVM(v, a.scalingOf(c.Context(), v))
				return nil
			}
			return printOne(a, v, vmName, vmColumns)
		}}
}

func (a *app) describeVM(v agent.VM, scaling string) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(a.Out, "%-12s%s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	row("name", "%s", v.Name)
	row("id", "%s", v.ID)
	row("state", "%s", v.State)
	if v.Reason != "" {
		row("reason", "%s", v.Reason)
	}
	row("created", "%s (%s ago)", v.CreatedAt.Local().Format(time.DateTime), age(v.CreatedAt))
	if v.IdleSince != nil {
		row("idle for", "%s", idleWord(v))
	}
	row("when idle", "%s", fate(v))
	if scaling != "" {
		row("autoscale", "%s", scaling)
	}
	row("image", "%s", v.Image)
	row("cpus", "%.2f used, limit %s, throttled %.1f s", v.Usage.CPUs, asked(cpus(v.Limits.CPUs), cpus(&v.Spec.CPUs)), v.Usage.ThrottledSeconds)
	row("memory", "%s used, limit %s, peak %s, %d OOM kills", quantity.FormatBytes(v.Usage.MemoryBytes), asked(bytesOr(v.Limits.MemoryBytes, "max"), quantity.FormatBytes(v.Spec.MemoryBytes)),
		quantity.FormatBytes(v.Usage.MemoryPeakBytes), v.Usage.OOMKills)
	row("pids", "%d used, limit %s", v.Usage.PIDs, number(v.Limits.PIDs))
	row("io", "%s read, %s written, limit %s", quantity.FormatBytes(v.Usage.ReadBytes), quantity.FormatBytes(v.Usage.WrittenBytes), ioText(v.Limits.IO))
	row("storage", "%s used, limit %s", quantity.FormatBytes(v.Usage.StorageBytes), asked(bytesOr(v.Limits.StorageBytes, "not enforced"), quantity.FormatBytes(v.Spec.StorageBytes)))
	a.describeNetwork(v, row)
	for _, g := range v.GPUs {
		row("gpu", "%s, %s", g.Name, g.ID)
	}
	if v.Usage.GPUMemoryBytes != nil {
		row("gpu memory", "%s used", quantity.FormatBytes(*v.Usage.GPUMemoryBytes))
	}
	row("cloudlets", "%d", v.Cloudlets)
	row("init", "pid %d", v.InitPID)
}

// asked is a limit and, where autoscaling has moved it, what was asked for.
func asked(limit, spec string) string {
	if limit == spec || limit == "max" || limit == "not enforced" {
		return limit
	}
	return limit + " (asked for " + spec + ")"
}

func (a *app) describeNetwork(v agent.VM, row func(name, format string, args ...any)) {
	if v.Network.Mode == agent.NetworkIsolated {
		row("network", "isolated: loopback only")
		return
	}
	row("network", "%s, %s %s", v.Network.Mode, v.Network.IPv4, v.Network.IPv6)
	limit := "max"
	if v.Limits.BandwidthBPS != nil {
		limit = quantity.FormatBits(*v.Limits.BandwidthBPS)
	}
	row("bandwidth", "limit %s each way, %s received, %s sent", asked(limit, quantity.FormatBits(v.Spec.BandwidthBPS)), quantity.FormatBytes(v.Usage.ReceivedBytes), quantity.FormatBytes(v.Usage.SentBytes))
	var ports []string
	for _, p := range v.Network.Publish {
		ports = append(ports, portText(p))
	}
	if len(ports) > 0 {
		row("published", "%s", strings.Join(ports, ", "))
	}
}

func (a *app) vmSet() *cobra.Command {
	var l limits
	var autoscale string
	var keep bool
	c := &cobra.Command{Use: "set VM", Short: "Resize a VM live", Args: exactly(1, "a VM"), ValidArgsFunction: a.completeVMs,
		Example: "  cloudflash vm set web --cpus 2 --memory 1GiB\n  cloudflash vm set web --autoscale off\n  cloudflash vm set web --keep"}
	l.flags(c)
	c.Flags().BoolVar(&keep, "keep", false, "do not delete it when idle; --keep=false takes that back")
	c.Flags().StringVar(&autoscale, "autoscale", "", "off, recommend or auto: whether limits are scaled; autoscale set has more")
	c.RunE = func(c *cobra.Command, args []string) error {
		var v agent.VM
		if c.Flags().Changed("io-rbps") || c.Flags().Changed("io-wbps") || c.Flags().Changed("io-riops") || c.Flags().Changed("io-wiops") {
			if err := a.client().get(c.Context(), "/vms/"+ref(args[0]), nil, &v); err != nil {
				return err
			}
		}
		body, err := l.body(c, v.Spec.IO)
		if err != nil {
			return err
		}
		if c.Flags().Changed("keep") {
			body["keep"] = keep
		}
		scale := c.Flags().Changed("autoscale")
		if len(body) == 0 && !scale {
			return usage("nothing to set; %s --help lists what can be", c.CommandPath())
		}
		if scale {
			if err := checkMode(autoscale); err != nil {
				return err
			}
		}
		return a.setVM(c.Context(), args[0], body, autoscale)
	}
	return c
}

// setVM resizes a VM, where body has anything, and sets the mode of its
// autoscaling, where there is one.
func (a *app) setVM(ctx context.Context, name string, body map[string]any, mode string) error {
	var v agent.VM
	if len(body) > 0 {
		if err := a.client().call(ctx, "PATCH", "/vms/"+ref(name), nil, body, &v); err != nil {
			return err
		}
	}
	if mode != "" {
		if _, err := a.changePolicy(ctx, name, inMode(mode)); err != nil {
			return err
		}
		if err := a.client().get(ctx, "/vms/"+ref(name), nil, &v); err != nil {
			return err
		}
	}
	return printOne(a, v, vmName, vmColumns)
}

func (a *app) vmDelete() *cobra.Command {
	var grace time.Duration
	var noWait bool
	c := &cobra.Command{Use: "delete VM...", Aliases: []string{"rm"}, Short: "Delete VMs and their data", Args: atLeast(1, "a VM"), ValidArgsFunction: a.completeVMs}
	c.Flags().DurationVar(&grace, "grace", 5*time.Second, "what cloudlets get from SIGTERM to SIGKILL")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until they are gone")
	c.RunE = func(c *cobra.Command, args []string) error {
		client := a.client()
		var started []agent.Operation
		for _, name := range args {
			var op agent.Operation
			if err := client.call(c.Context(), "DELETE", "/vms/"+ref(name), url.Values{"grace": {grace.String()}}, nil, &op); err != nil {
				return err
			}
			if noWait {
				started = append(started, op)
				continue
			}
			if err := a.await(c.Context(), client, op); err != nil {
				return err
			}
			fmt.Fprintf(a.Err, "VM %s deleted\n", clean(name))
		}
		if !noWait {
			return nil
		}
		return printList(a, started, func(op agent.Operation) string { return op.ID }, operationColumns)
	}
	return c
}

var operationColumns = []column[agent.Operation]{
	{"ID", false, func(op agent.Operation) string { return op.ID }},
	{"KIND", false, func(op agent.Operation) string { return op.Kind }},
	{"TARGET", false, func(op agent.Operation) string { return op.Target }},
	{"STATE", false, func(op agent.Operation) string { return string(op.State) }},
}

// await waits for an operation, however long it takes.
func (a *app) await(ctx context.Context, client *client, op agent.Operation) error {
	for op.State == agent.OperationRunning {
		if err := client.get(ctx, "/operations/"+op.ID, url.Values{"wait": {"30s"}}, &op); err != nil {
			return err
		}
	}
	if op.State == agent.OperationFailed {
		return fmt.Errorf("%s: %s", clean(op.Kind), clean(op.Error))
	}
	return nil
}

func (a *app) vmAction(verb, short string) *cobra.Command {
	return &cobra.Command{Use: verb + " VM...", Short: short, Args: atLeast(1, "a VM"), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			var all []agent.VM
			for _, name := range args {
				var v agent.VM
				if err := a.client().call(c.Context(), "POST", "/vms/"+ref(name)+"/actions/"+verb, nil, nil, &v); err != nil {
					return err
				}
				all = append(all, v)
			}
			return printList(a, all, vmName, vmColumns)
		}}
}

// waitStates are what a VM can be waited for to be.
var waitStates = []string{"idle", "gone", "running", "frozen", "failed"}

func (a *app) vmWait() *cobra.Command {
	var state string
	var timeout time.Duration
	c := &cobra.Command{Use: "wait VM", Short: "Wait until a VM is in a state", Args: exactly(1, "a VM"), ValidArgsFunction: a.completeVMs}
	c.Flags().StringVar(&state, "for", "idle", "idle, gone, running, frozen or failed")
	c.Flags().DurationVar(&timeout, "timeout", 0, "give up after this long (exit code 8); 0 is never")
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(waitStates, state) {
			return usage("--for must be one of %s, not %q", strings.Join(waitStates, ", "), state)
		}
		ctx := c.Context()
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		for {
			done, err := a.vmIs(ctx, args[0], state)
			if ctx.Err() != nil && c.Context().Err() == nil {
				return &exit{ExitTimeout, fmt.Sprintf("VM %s is not %s after %s", clean(args[0]), state, timeout)}
			}
			if done || err != nil {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	return c
}

func (a *app) vmIs(ctx context.Context, name, state string) (bool, error) {
	var v agent.VM
	err := a.client().get(ctx, "/vms/"+ref(name), nil, &v)
	var p *problemError
	if errors.As(err, &p) && state == "gone" && p.Status == 404 {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if state == "idle" {
		return v.IdleSince != nil, nil
	}
	return string(v.State) == state, nil // gone is no state
}

func (a *app) completeVMs(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return complete(a, c, "/vms", vmName)
}

func cpus(n *float64) string {
	if n == nil {
		return "max"
	}
	return strconv.FormatFloat(math.Round(*n*1000)/1000, 'f', -1, 64)
}

func number(n *int64) string {
	if n == nil {
		return "max"
	}
	return fmt.Sprint(*n)
}

func bytesOr(n *int64, other string) string {
	if n == nil {
		return other
	}
	return quantity.FormatBytes(*n)
}

func ioText(io *agent.IO) string {
	if io == nil || *io == (agent.IO{}) {
		return "none"
	}
	var parts []string
	for _, p := range []struct {
		name string
		n    int64
		unit string
	}{{"read", io.ReadBPS, "B/s"}, {"write", io.WriteBPS, "B/s"}, {"read", io.ReadIOPS, "op/s"}, {"write", io.WriteIOPS, "op/s"}} {
		switch {
		case p.n == 0:
		case p.unit == "B/s":
			parts = append(parts, p.name+" "+quantity.FormatBytes(p.n)+"/s")
		default:
			parts = append(parts, fmt.Sprintf("%s %d op/s", p.name, p.n))
		}
	}
	return strings.Join(parts, ", ")
}

// age is how long ago something was, in one or two units.
func age(t time.Time) string { return short(time.Since(t)) }

// short is a duration in one or two units.
func short(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(max(d, 0).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
