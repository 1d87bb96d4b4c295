// Command replay runs traces of demand through autoscaling policies and prints what
// each leaves unused and what it withholds. It touches nothing of the host.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"cloudflash/agent/autoscale/replay"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	traces := flags.String("traces", "../shared/traces", "folder of recorded traces; without it, only made-up ones are replayed")
	dir := flags.String("out", "", "folder for autoscale.csv and autoscale.svg, made if missing")
	seed := flags.Uint64("seed", 1, "of what is drawn")
	if err := flags.Parse(args); err != nil {
		return err
	}
	sets := replay.SyntheticSets(*seed)
	rec, err := replay.Load(*traces)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(out, "No recorded traces: %v.\n", err)
	case err != nil:
		return err
	default:
		sets = append(replay.RecordedSets(rec, *seed), sets...)
	}
	var rows []replay.Row
	for _, s := range sets {
		added := s.Rows()
		if err := replay.WriteTable(out, added); err != nil {
			return err
		}
		rows = append(rows, added...)
	}
	if *dir == "" {
		return nil
	}
	return errors.Join(write(*dir, "autoscale.csv", rows, replay.WriteCSV), write(*dir, "autoscale.svg", rows, replay.WritePlot))
}

func write(dir, name string, rows []replay.Row, to func(io.Writer, []replay.Row) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	return errors.Join(to(f, rows), f.Close())
}
