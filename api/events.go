package api

import (
	"context"
	"io"
	"net/http"
	"time"

	"cloudflash/agent"
	"github.com/danielgtaylor/huma/v2"
)

func (s *server) listEvents(_ context.Context, in *Seqs) (*huma.StreamResponse, error) {
	return answerFeed(s, plainFeed("event", func(e agent.Event) uint64 { return e.Seq }, s.agent.Events), *in)
}

// writeTimeout is how long a client of a stream may not take what is written.
const writeTimeout = 30 * time.Second

// streamWriter writes to a client that must keep up.
type streamWriter struct {
	w       io.Writer
	control *http.ResponseController
}

func newStreamWriter(w http.ResponseWriter) *streamWriter {
	return &streamWriter{w: w, control: http.NewResponseController(w)}
}

// write sends b at once.
func (s *streamWriter) write(b []byte) error {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has one
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.control.Flush()
}
