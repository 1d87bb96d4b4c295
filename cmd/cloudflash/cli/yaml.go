package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// encodeYAML goes through JSON, so that names, order and omissions are the same.
func encodeYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	y := yamlWriter{in: json.NewDecoder(bytes.NewReader(b))}
	y.in.UseNumber()
	if err := y.value("", ""); err != nil {
		return err
	}
	_, err = io.WriteString(w, y.out.String())
	return err
}

// yamlWriter writes JSON as YAML in blocks. The YAML library writes strings of
// several lines as they are, with what a terminal acts on in them.
type yamlWriter struct {
	in  *json.Decoder
	out strings.Builder
}

// value writes the next value. Its lines begin with indent; the first may stand
// behind a key and its colon or behind a dash, which after tells.
func (y *yamlWriter) value(indent, after string) error {
	t, err := y.in.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		return y.members(indent, after, "{}", func() error {
			key, err := y.in.Token()
			if err != nil {
				return err
			}
			y.out.WriteString(yamlString(fmt.Sprint(key)) + ":")
			return y.value(indent+"  ", ":")
		})
	case json.Delim('['):
		return y.members(indent, after, "[]", func() error {
			y.out.WriteString("-")
			return y.value(indent+"  ", "-")
		})
	}
	if after != "" {
		y.out.WriteString(" ")
	}
	switch t := t.(type) {
	case nil:
		y.out.WriteString("null")
	case string:
		y.out.WriteString(yamlString(t))
	default:
		fmt.Fprint(&y.out, t)
	}
	y.out.WriteString("\n")
	return nil
}

// members writes an object or a list, one member a line.
func (y *yamlWriter) members(indent, after, empty string, member func() error) error {
	lead := map[string]string{"": "", ":": "\n" + indent, "-": " "}[after]
	if !y.in.More() {
		y.out.WriteString(strings.Repeat(" ", len(after)) + empty + "\n")
	}
	for y.in.More() {
		y.out.WriteString(lead)
		if err := member(); err != nil {
			return err
		}
		lead = indent
	}
	_, err := y.in.Token()
	return err
}

// yamlPlain are strings that need no quotes, unless they are words of YAML.
var yamlPlain = regexp.MustCompile(`^[A-Za-z_/]([\w./(),=% -]*[\w./()=%])?$`)

// yamlString writes s plainly where every reader takes it for the same string,
// else in double quotes: all escapes of Go are YAML's.
func yamlString(s string) string {
	if !yamlPlain.MatchString(s) || token.IsNeedQuoted(s) || slices.Contains([]string{"y", "n", "on", "off", "yes", "no"}, strings.ToLower(s)) {
		return strconv.QuoteToASCII(s)
	}
	return s
}
