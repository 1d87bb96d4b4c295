package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/jedib0t/go-pretty/v6/table"
)

var formats = []string{"table", "wide", "json", "jsonl", "yaml", "csv", "name"}

func (a *app) checkOutput() error {
	if !slices.Contains(formats, a.output) {
		return usage("--output must be one of %s, not %q", strings.Join(formats, ", "), a.output)
	}
	return nil
}

// column is one column of a table. Wide ones are shown with -o wide and csv.
type column[T any] struct {
	title string
	wide  bool
	cell  func(T) string
}

// printList prints things in the format that was asked for.
func printList[T any](a *app, all []T, name func(T) string, columns []column[T]) error {
	switch a.output {
	case "json":
		return encodeJSON(a.Out, all)
	case "jsonl":
		for _, v := range all {
			b, err := json.Marshal(v)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.Out, escaped(b))
		}
		return nil
	case "yaml":
		return encodeYAML(a.Out, all)
	case "name":
		for _, v := range all {
			fmt.Fprintln(a.Out, clean(name(v)))
		}
		return nil
	case "csv":
		return printCSV(a, all, columns)
	}
	printTable(a, all, columns)
	return nil
}

// printOne prints one thing; as JSON and YAML it is no list.
func printOne[T any](a *app, v T, name func(T) string, columns []column[T]) error {
	switch a.output {
	case "json":
		return encodeJSON(a.Out, v)
	case "yaml":
		return encodeYAML(a.Out, v)
	}
	return printList(a, []T{v}, name, columns)
}

func encodeJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, escaped(b))
	return err
}

// escaped writes what a terminal would act on as JSON escapes, which say the
// same. encoding/json does so below U+0020 only.
func escaped(b []byte) string {
	var s strings.Builder
	for _, r := range string(b) {
		switch {
		case r == '\n' || !acts(r): // a new line of its own is between values only
			s.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&s, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&s, `\u%04x`, r)
		}
	}
	return s.String()
}

func printCSV[T any](a *app, all []T, columns []column[T]) error {
	w := csv.NewWriter(a.Out)
	row := make([]string, len(columns))
	for i, c := range columns {
		row[i] = strings.ToLower(c.title)
	}
	if !a.noHeaders {
		_ = w.Write(row) // Error tells below
	}
	for _, v := range all {
		for i, c := range columns {
			row[i] = clean(c.cell(v))
		}
		_ = w.Write(row)
	}
	w.Flush()
	return w.Error()
}

func printTable[T any](a *app, all []T, columns []column[T]) {
	columns = slices.DeleteFunc(slices.Clone(columns), func(c column[T]) bool { return c.wide && a.output != "wide" })
	t := table.NewWriter()
	t.SetOutputMirror(a.Out)
	style := table.StyleDefault
	style.Options = table.Options{}
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	row := func(cell func(column[T]) string) table.Row {
		r := make(table.Row, len(columns))
		for i, c := range columns {
			r[i] = cell(c)
		}
		return r
	}
	if !a.noHeaders {
		t.AppendHeader(row(func(c column[T]) string { return c.title }))
	}
	for _, v := range all {
		t.AppendRow(row(func(c column[T]) string { return clean(c.cell(v)) }))
	}
	if len(all) > 0 || !a.noHeaders {
		t.Render()
	}
}

// clean keeps what others have named from playing with the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if acts(r) {
			return '�'
		}
		return r
	}, s)
}

// acts reports whether a terminal may do something else with r than show it:
// control characters of seven and eight bits, and those that turn the direction
// of text or have no width.
func acts(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }
