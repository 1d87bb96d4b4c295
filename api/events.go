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
	return answerFeed(s, plainFeed("event", func(e agent.Event) uint64 { return e.Seq }, s.parts.Host.Events), *in)
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

// Write sends b at once.
func (s *streamWriter) Write(b []byte) (int, error) {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has one
	n, err := s.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, s.control.Flush()
}

func (s *streamWriter) write(b []byte) error {
	_, err := s.Write(b)
	return err
}
