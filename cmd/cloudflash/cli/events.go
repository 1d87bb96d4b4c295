package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"cloudflash/agent"
	"github.com/spf13/cobra"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var since uint64
	c := &cobra.Command{Use: "events", Short: "Show what happened", Args: exactly(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if follow {
				return a.follow(c.Context(), "/events", seqs(since), a.followed)
			}
			all, err := sequence[agent.Event](c.Context(), a.client(), "/events", seqs(since))
			if err != nil {
				return err
			}
			return printList(a, all, func(e agent.Event) string { return strconv.FormatUint(e.Seq, 10) }, eventColumns)
		}}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as they happen")
	c.Flags().Uint64Var(&since, "since", 0, "only events after this number")
	return c
}

func seqs(since uint64) url.Values { return url.Values{"since": {strconv.FormatUint(since, 10)}} }

// sequence fetches all pages of what is told by number.
func sequence[T any](ctx context.Context, c *client, path string, query url.Values) ([]T, error) {
	query.Set("limit", "1000")
	all := []T{}
	for {
		var page struct { // a new one each time: decoding leaves what is absent as it was
			Items   []T    `json:"items"`
			LastSeq uint64 `json:"last_seq"`
		}
		if err := c.get(ctx, path, query, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if len(page.Items) < 1000 {
			return all, nil
		}
		query.Set("since", strconv.FormatUint(page.LastSeq, 10))
	}
}

var eventColumns = []column[agent.Event]{
	{"SEQ", false, func(e agent.Event) string { return strconv.FormatUint(e.Seq, 10) }},
	{"TIME", false, func(e agent.Event) string { return e.At.Local().Format("15:04:05.000") }},
	{"LEVEL", false, func(e agent.Event) string { return e.Level }},
	{"KIND", false, func(e agent.Event) string { return e.Kind }},
	{"MESSAGE", false, func(e agent.Event) string { return e.Message }},
}

// follow prints a stream of server-sent events until it is interrupted.
func (a *app) follow(ctx context.Context, path string, query url.Values, told func(data string) error) error {
	if a.output != "table" && a.output != "wide" && a.output != "jsonl" {
		return usage("--follow never ends: its --output must be table, wide or jsonl, not %s", a.output)
	}
	resp, err := a.client().open(ctx, "GET", path, query, nil, "Accept", "text/event-stream")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	kind := ""
	for lines.Scan() {
		if k, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			kind = k
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if err := a.toldOf(kind, data, told); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return errStreamClosed()
}

// toldOf prints one message of the stream.
func (a *app) toldOf(kind, data string, told func(data string) error) error {
	if kind == "gap" {
		fmt.Fprintln(a.Err, "some events are gone: the agent keeps the newest only")
		return nil
	}
	if a.output == "jsonl" {
		_, err := fmt.Fprintln(a.Out, escaped([]byte(data)))
		return err
	}
	return told(data)
}

func (a *app) followed(data string) error {
	var e agent.Event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("decode an event: %w", err)
	}
	_, err := fmt.Fprintf(a.Out, "%s  %-5s  %s\n", e.At.Local().Format("15:04:05.000"), clean(e.Level), clean(e.Message))
	return err
}
