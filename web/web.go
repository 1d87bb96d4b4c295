// Package web is the dashboard: plain HTML, CSS and JavaScript, embedded, with no
// build step and nothing loaded from elsewhere. It speaks to the same API as
// everybody else.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strings"
	"sync"
)

//go:embed static
var files embed.FS

// policy lets the page run its own files only; text from the agent can never
// become code.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// page matches the paths that are pages of the dashboard. They are told apart in
// the browser; whatever else is unknown here stays unknown.
var page = regexp.MustCompile(`^/(|autoscaling|memory|prometheus|vms/[^/]+)$`)

// asset is one embedded file, ready to send.
type asset struct {
	body        []byte
	packed      func() []byte // body in gzip, or nil where that does not pay
	etag        string
	contentType string
}

// Handler serves the dashboard. Files are revalidated by their ETag, so that an
// upgraded agent never meets the scripts of an old one.
func Handler() http.Handler {
	assets := map[string]asset{}
	_ = fs.WalkDir(files, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		assets[strings.TrimPrefix(name, "static")] = asset{b, sync.OnceValue(func() []byte { return pack(b) }), hex.EncodeToString(sum[:12]), contentType(name)}
		return nil
	}) // an embedded tree cannot fail to be walked
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := path.Clean("/" + r.URL.Path)
		if page.MatchString(name) {
			name = "/index.html"
		}
		a, ok := assets[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		a.send(w, r)
	})
}

func (a asset) send(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	body, etag := a.body, `"`+a.etag+`"`
	if packed := a.packed(); packed != nil && acceptsGzip(r.Header.Get("Accept-Encoding")) {
		body, etag = packed, `"`+a.etag+`-gzip"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", etag)
	if r.Header.Get("If-None-Match") == etag {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", a.contentType)
	_, _ = w.Write(body) // the browser is gone: nobody to tell
}

// pack compresses b, or answers nil when little would be won.
func pack(b []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // the level is a valid one
	_, _ = w.Write(b)                                       // memory does not fail
	_ = w.Close()
	if out.Len() > len(b)*9/10 {
		return nil
	}
	return out.Bytes()
}

// acceptsGzip reads Accept-Encoding as browsers write it: a list of names, of
// which one that is refused has q=0.
func acceptsGzip(header string) bool {
	for item := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(item, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
			return !ok || strings.Trim(q, "0.") != ""
		}
	}
	return false
}

func contentType(name string) string {
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "text/plain; charset=utf-8"
}
