package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/tokens"
	"cloudflash/cmd/quantity"

	"github.com/spf13/cobra"
)

func (a *app) hostCommand() *cobra.Command {
	info := &cobra.Command{Use: "info", Short: "Show the host, its capacity and its use", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			var h agent.Host
			if err := a.client().get(c.Context(), "/host", nil, &h); err != nil {
				return err
			}
			switch a.output {
			case "table", "wide":
				a.describeHost(h)
				return nil
			}
			return printOne(a, h, func(h agent.Host) string { return h.Name }, []column[agent.Host]{
				{"NAME", false, func(h agent.Host) string { return h.Name }},
				{"CPUS", false, func(h agent.Host) string { return strconv.Itoa(h.CPUs) }},
				{"MEMORY_BYTES", false, func(h agent.Host) string { return strconv.FormatInt(h.MemoryBytes, 10) }},
			})
		}}
	check := &cobra.Command{Use: "check", Short: "Try what the agent lives by", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := list[agent.Check](c.Context(), a.client(), "/host/checks", nil)
			if err != nil {
				return err
			}
			err = printList(a, all, func(c agent.Check) string { return c.Name }, []column[agent.Check]{
				{"CHECK", false, func(c agent.Check) string { return c.Name }},
				{"OK", false, func(c agent.Check) string { return map[bool]string{true: "yes", false: "NO"}[c.OK] }},
				{"FOUND", false, func(c agent.Check) string { return c.Detail }},
				{"FIX", false, func(c agent.Check) string { return c.Fix }},
			})
			for _, check := range all {
				if !check.OK && err == nil {
					err = &exit{ExitFailure, ""}
				}
			}
			return err
		}}
	return group("host", "Show and check this machine", info, check)
}

func (a *app) describeHost(h agent.Host) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(a.Out, "%-12s%s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	row("host", "%s, %s, Linux %s", h.Name, h.OS, h.Kernel)
	row("agent", "%s, up %s, %s resident", h.Version, age(h.AgentStartedAt), quantity.FormatBytes(h.Usage.AgentMemoryBytes))
	row("cpus", "%d, %.0f %% busy, load %.2f; promised %s of %s", h.CPUs, h.Usage.CPURatio*100, h.Usage.Load1, cpus(&h.Reserved.CPUs), cpus(&h.Capacity.CPUs))
	row("memory", "%s, %s used; promised %s of %s", quantity.FormatBytes(h.MemoryBytes), quantity.FormatBytes(h.Usage.MemoryUsedBytes),
		quantity.FormatBytes(h.Reserved.MemoryBytes), quantity.FormatBytes(h.Capacity.MemoryBytes))
	row("storage", "%s, %s used; promised %s of %s", quantity.FormatBytes(h.StorageBytes), quantity.FormatBytes(h.Usage.StorageUsedBytes),
		quantity.FormatBytes(h.Reserved.StorageBytes), quantity.FormatBytes(h.Capacity.StorageBytes))
	var states []string
	for _, s := range []agent.CloudletState{agent.CloudletQueued, agent.CloudletStarting, agent.CloudletRunning, agent.CloudletFrozen} {
		if n := h.CloudletsByState[s]; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, s))
		}
	}
	row("VMs", "%d", h.VMs)
	row("cloudlets", "%s", strings.Join(append(states, "")[:max(len(states), 1)], ", "))
	row("cgroup", "%s", h.CgroupParent)
	row("state", "%s", h.StateDir)
}

func (a *app) tokenCommand() *cobra.Command {
	columns := []column[agent.Token]{
		{"NAME", false, func(t agent.Token) string { return t.Name }},
		{"ROLE", false, func(t agent.Token) string { return t.Role }},
		{"KIND", false, func(t agent.Token) string { return t.Kind }},
		{"AGE", false, func(t agent.Token) string { return age(t.CreatedAt) }},
		{"ID", false, func(t agent.Token) string { return t.ID }},
	}
	name := func(t agent.Token) string { return t.Name }
	var role string
	create := &cobra.Command{Use: "create NAME", Short: "Create a token and print its secret, once", Args: exactly(1, "a name"),
		RunE: func(c *cobra.Command, args []string) error {
			type created struct {
				agent.Token
				Secret string `json:"secret"`
			}
			var out created
			if err := a.client().call(c.Context(), "POST", "/tokens", nil, map[string]any{"name": args[0], "role": role}, &out); err != nil {
				return err
			}
			if a.output == "table" || a.output == "wide" {
				fmt.Fprintln(a.Out, clean(out.Secret))
				return nil
			}
			return printOne(a, out, func(t created) string { return t.Name }, []column[created]{
				{"NAME", false, func(t created) string { return t.Name }},
				{"ROLE", false, func(t created) string { return t.Role }},
				{"ID", false, func(t created) string { return t.ID }},
				{"SECRET", false, func(t created) string { return t.Secret }},
			})
		}}
	create.Flags().StringVar(&role, "role", tokens.RoleViewer, "viewer may look, admin may do everything")
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List tokens and browser sessions", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := list[agent.Token](c.Context(), a.client(), "/tokens", nil)
			if err != nil {
				return err
			}
			return printList(a, all, name, columns)
		}}
	revoke := &cobra.Command{Use: "revoke TOKEN...", Short: "Revoke tokens or sessions, by name or id", Args: atLeast(1, "a token"),
		RunE: func(c *cobra.Command, args []string) error {
			for _, t := range args {
				if err := a.client().call(c.Context(), "DELETE", "/tokens/"+ref(t), nil, nil, nil); err != nil {
					return err
				}
			}
			return nil
		}}
	return group("token", "Manage tokens of the API", create, list, revoke)
}

func (a *app) loginCommand() *cobra.Command {
	var address, role string
	c := &cobra.Command{Use: "login", Short: "Print a one-time link to the dashboard", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			type link struct {
				URL       string    `json:"url"`
				ExpiresAt time.Time `json:"expires_at"`
			}
			var out struct {
				Path      string    `json:"path"`
				ExpiresAt time.Time `json:"expires_at"`
			}
			if err := a.client().call(c.Context(), "POST", "/login/codes", nil, map[string]any{"role": role}, &out); err != nil {
				return err
			}
			if address == "" {
				address = a.client().dashboard()
			}
			l := link{strings.TrimSuffix(address, "/") + out.Path, out.ExpiresAt}
			if a.output != "table" && a.output != "wide" {
				return printOne(a, l, func(l link) string { return l.URL }, []column[link]{
					{"URL", false, func(l link) string { return l.URL }},
					{"EXPIRES AT", false, func(l link) string { return l.ExpiresAt.Format(time.RFC3339) }},
				})
			}
			fmt.Fprintln(a.Out, clean(l.URL))
			fmt.Fprintf(a.Err, "good for one login until %s\n", out.ExpiresAt.Local().Format(time.TimeOnly))
			return nil
		}}
	c.Flags().StringVar(&address, "url", "", "address of the dashboard (that of --host, or http://localhost:5000)")
	c.Flags().StringVar(&role, "role", tokens.RoleAdmin, "admin or viewer")
	return c
}

func (a *app) apiCommand() *cobra.Command {
	return &cobra.Command{Use: "api METHOD PATH [BODY]", Short: "Send one request to the API; BODY - is standard input",
		Example: "  cloudflash api GET /api/v1/vms\n  cloudflash api PATCH /api/v1/vms/web '{\"cpus\": 2}'",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 || len(args) > 3 {
				return usage("usage: %s", c.UseLine())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			client := a.client()
			if client.err != nil {
				return client.err
			}
			var body io.Reader
			if len(args) == 3 {
				body = strings.NewReader(args[2])
				if args[2] == "-" {
					body = a.In
				}
			}
			if !strings.HasPrefix(args[1], "/") {
				return usage("PATH begins with /, such as /api/v1/vms")
			}
			resp, err := client.send(c.Context(), strings.ToUpper(args[0]), client.base+args[1], body)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(a.Out, resp.Body)
			return err
		}}
}
