package cli

import (
	"context"
	"fmt"

	"cloudflash/agent"
	"github.com/spf13/cobra"
)

func (a *app) topCommand() *cobra.Command {
	return a.topOf("top", "Watch what VMs and cloudlets use", false)
}

const topKeys = `Keys: c m n d p a sort by CPU, memory, network, disk, processes or name, r turns the order round; Tab changes between
VMs and cloudlets, arrows and Page keys move; e shows cloudlets that have ended; Space stands still; q ends.
Where the output is no terminal, and with --once, it prints one picture and ends.`

func (a *app) topOf(name, short string, onlyVMs bool) *cobra.Command {
	var once bool
	c := &cobra.Command{Use: name, Short: short, Long: short + " on the whole screen.\n\n" + topKeys, Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if !a.terminal || once {
				return a.frame(c, onlyVMs)
			}
			if a.output != "table" && a.output != "wide" {
				return usage("top never ends: for --output %s add --once", a.output)
			}
			return a.watch(c.Context(), onlyVMs)
		}}
	c.Flags().BoolVar(&once, "once", false, "one picture, then end")
	return c
}

// picture is everything top shows, for programs.
type picture struct {
	Host      agent.Host       `json:"host"`
	VMs       []agent.VM       `json:"vms"`
	Cloudlets []agent.Cloudlet `json:"cloudlets,omitempty"`
}

func (a *app) encodePicture(p picture) error {
	if a.output == "csv" || a.output == "name" {
		return usage("top has no --output %s; json, jsonl and yaml are", a.output)
	}
	return printOne(a, p, nil, nil)
}

// look fetches a picture.
func (a *app) look(ctx context.Context, onlyVMs bool) (p picture, err error) {
	client := a.client()
	if err = client.get(ctx, "/host", nil, &p.Host); err != nil {
		return p, err
	}
	if p.VMs, err = list[agent.VM](ctx, client, "/vms", nil); err != nil || onlyVMs {
		return p, err
	}
	p.Cloudlets, err = list[agent.Cloudlet](ctx, client, "/cloudlets", nil)
	return p, err
}

// frame prints one picture.
func (a *app) frame(c *cobra.Command, onlyVMs bool) error {
	p, err := a.look(c.Context(), onlyVMs)
	if err != nil {
		return err
	}
	if a.output != "table" && a.output != "wide" {
		return a.encodePicture(p)
	}
	a.describeHost(p.Host)
	fmt.Fprintln(a.Out)
	printTable(a, p.VMs, vmColumns)
	if onlyVMs {
		return nil
	}
	fmt.Fprintln(a.Out)
	printTable(a, p.Cloudlets[:min(len(p.Cloudlets), 20)], cloudletColumns)
	return nil
}
