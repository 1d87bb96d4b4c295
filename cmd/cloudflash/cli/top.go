package cli

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"cloudflash/agent"
	"github.com/spf13/cobra"
)

// withAccept asks for another content type.
type withAccept struct {
	next   http.RoundTripper
	accept string
}

// RoundTrip sends the request with the content type asked for.
func (w withAccept) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept", w.accept)
	if w.next == nil {
		return http.DefaultTransport.RoundTrip(r)
	}
	return w.next.RoundTrip(r)
}

func (a *app) topCommand() *cobra.Command { return a.topOf("top") }

func (a *app) topOf(name string) *cobra.Command {
	var once bool
	c := &cobra.Command{Use: name, Short: "Watch what VMs and cloudlets use", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			live := a.terminal && !once
			if live && a.output != "table" && a.output != "wide" {
				return usage("top never ends: for --output %s add --once", a.output)
			}
			for {
				err := a.frame(c, live)
				if c.Context().Err() != nil {
					return nil
				}
				if err != nil || !live {
					return err
				}
				select {
				case <-c.Context().Done():
					return nil
				case <-time.After(time.Second):
				}
			}
		}}
	c.Flags().BoolVar(&once, "once", false, "one picture, then end")
	return c
}

// picture is everything top shows, for programs.
type picture struct {
	Host      agent.Host       `json:"host"`
	VMs       []agent.VM       `json:"vms"`
	Cloudlets []agent.Cloudlet `json:"cloudlets"`
}

func (a *app) encodePicture(p picture) error {
	if a.output == "csv" || a.output == "name" {
		return usage("top has no --output %s; json, jsonl and yaml are", a.output)
	}
	return printOne(a, p, nil, nil)
}

func (a *app) frame(c *cobra.Command, live bool) error {
	client := a.client()
	var h agent.Host
	if err := client.get(c.Context(), "/host", nil, &h); err != nil {
		return err
	}
	vms, err := list[agent.VM](c.Context(), client, "/vms", nil)
	if err != nil {
		return err
	}
	cloudlets, err := list[agent.Cloudlet](c.Context(), client, "/cloudlets", nil)
	if err != nil {
		return err
	}
	if a.output != "table" && a.output != "wide" {
		return a.encodePicture(picture{h, vms, cloudlets})
	}
	var b strings.Builder
	shown := *a
	shown.Out, shown.output = &b, "table"
	shown.describeHost(h)
	fmt.Fprintln(&b)
	printTable(&shown, vms, vmColumns)
	fmt.Fprintln(&b)
	printTable(&shown, cloudlets[:min(len(cloudlets), 20)], cloudletColumns)
	text := b.String()
	if live { // home, draw, erase what is left of each line and below
		text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
	}
	_, err = fmt.Fprint(a.Out, text)
	return err
}
