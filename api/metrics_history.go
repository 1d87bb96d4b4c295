package api

import (
	"bufio"
	"context"
	"math"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/api/problem"

	"github.com/danielgtaylor/huma/v2"
)

// Span is what part of a history is wanted.
type Span struct {
	Range  string `query:"range" default:"5m" doc:"How far back, 1s to 24h: to 5m in steps of a second, to 1h of 10 s, beyond of 2 minutes"`
	Fields string `query:"fields" doc:"Names of series, separated by commas; all when left out"`
	Accept string `header:"Accept" doc:"text/csv for a table"`
}

type vmMetricsInput struct {
	Target
	Span
}

// historyBody is a History as columns: one entry per point in t and in each list
// of each series.
type historyBody struct {
	From        int64                    `json:"from" doc:"Unix second at which the first point begins"`
	To          int64                    `json:"to" doc:"Unix second at which the last point ends"`
	StepSeconds int64                    `json:"step_seconds" doc:"What one point stands for"`
	Points      int                      `json:"points"`
	T           []int64                  `json:"t" doc:"Unix second at which each point begins"`
	Series      map[string]historySeries `json:"series"`
}

type historySeries struct {
	Avg points `json:"avg" doc:"null is a gap"`
	Min points `json:"min"`
	Max points `json:"max"`
}

// points are numbers, of which those that are NaN are null in JSON.
type points []float64

// MarshalJSON writes all of them at once: there may be tens of thousands.
func (p points) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 8*len(p)+2), '[')
	for i, v := range p {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendPoint(b, v, "null")
	}
	return append(b, ']'), nil
}

// Schema describes them to huma.
func (points) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeNumber, Nullable: true}}
}

func appendPoint(b []byte, v float64, none string) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, none...)
	}
	return strconv.AppendFloat(b, v, 'f', -1, 64)
}

const vmMetricsPath, hostMetricsPath = base + "/vms/{ref}/metrics", base + "/host/metrics"

// documentHistory describes the answers, which huma only passes on.
func (s *server) documentHistory() {
	for _, path := range []string{vmMetricsPath, hostMetricsPath} {
		s.documentContent(path, map[string]*huma.MediaType{
			"application/json": {Schema: s.schemaOf(reflect.TypeFor[historyBody]())},
			"text/csv":         {Schema: textSchema},
		})
	}
}

func (s *server) vmMetrics(_ context.Context, in *vmMetricsInput) (*huma.StreamResponse, error) {
	span, err := in.span()
	if err != nil {
		return nil, err
	}
	h, err := s.parts.History.VMHistory(in.Ref, span, in.fields())
	if err != nil {
		return nil, err
	}
	return s.historyAnswer(h, in.Accept), nil
}

func (s *server) hostMetrics(_ context.Context, in *Span) (*huma.StreamResponse, error) {
	span, err := in.span()
	if err != nil {
		return nil, err
	}
	h, err := s.parts.History.HostHistory(span, in.fields())
	if err != nil {
		return nil, err
	}
	return s.historyAnswer(h, in.Accept), nil
}

func (s Span) span() (time.Duration, error) {
	d, err := time.ParseDuration(s.Range)
	if err != nil || d < time.Second || d > agent.HistoryLongest {
		return 0, refuseFields("invalid_range", []problem.Field{{Pointer: "?range", Detail: "must be a duration of 1s to 24h, such as 5m, 1h or 24h", Min: "1s", Max: "24h"}})
	}
	return d, nil
}

func (s Span) fields() []string {
	if s.Fields == "" {
		return nil
	}
	return strings.Split(s.Fields, ",")
}

func (s *server) historyAnswer(h agent.History, accept string) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Cache-Control", "no-store")
		hc.SetHeader("Vary", "Accept")
		if wantsCSV(accept) {
			hc.SetHeader("Content-Type", "text/csv; charset=utf-8; header=present")
			hc.SetStatus(http.StatusOK)
			w := bufio.NewWriter(hc.BodyWriter())
			writeHistoryCSV(w, h)
			_ = w.Flush() // the client is gone: nobody to tell
			return
		}
		hc.SetHeader("Content-Type", "application/json")
		hc.SetStatus(http.StatusOK)
		_ = s.marshal(hc.BodyWriter(), historyBodyOf(h))
	}}
}

// wantsCSV reports whether a table is asked for before JSON.
func wantsCSV(accept string) bool {
	for kind := range strings.SplitSeq(accept, ",") {
		switch name, _, _ := mime.ParseMediaType(kind); name {
		case "text/csv":
			return true
		case "application/json", "*/*":
			return false
		}
	}
	return false
}

func historyBodyOf(h agent.History) historyBody {
	b := historyBody{StepSeconds: int64(h.Step / time.Second), Points: len(h.Times), T: h.Times, Series: make(map[string]historySeries, len(h.Series))}
	if n := len(h.Times); n > 0 {
		b.From, b.To = h.Times[0], h.Times[n-1]+b.StepSeconds
	}
	for _, one := range h.Series {
		b.Series[one.Name] = historySeries{Avg: one.Avg, Min: one.Min, Max: one.Max}
	}
	return b
}

// writeHistoryCSV writes a line per point; a gap is an empty cell.
func writeHistoryCSV(w *bufio.Writer, h agent.History) {
	line := []byte("t,time")
	for _, s := range h.Series {
		line = append(line, ","+s.Name+","+s.Name+"_min,"+s.Name+"_max"...)
	}
	for i, t := range h.Times {
		_, _ = w.Write(append(line, '\n')) // Flush tells
		line = strconv.AppendInt(line[:0], t, 10)
		line = append(line, ',')
		line = time.Unix(t, 0).UTC().AppendFormat(line, time.RFC3339)
		for _, s := range h.Series {
			for _, v := range [...]float64{s.Avg[i], s.Min[i], s.Max[i]} {
				line = appendPoint(append(line, ','), v, "")
			}
		}
	}
	_, _ = w.Write(append(line, '\n'))
}
