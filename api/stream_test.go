package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/api/problem"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what should come at once.
const patience = 10 * time.Second

// get opens a request to a real server that ends with the test.
func get(t *testing.T, h http.Handler, target string, headers ...string) *http.Response {
	t.Helper()
	srv := httptest.NewServer(h)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() { cancel(); srv.Close() })
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestOutput(t *testing.T) {
	const text = "one\ntwo\nthree\nfour"
	long := strings.Repeat(strings.Repeat("x", 99)+"\n", 3000) // many chunks
	tests := map[string]struct{ written, query, want, offset string }{
		"all":                    {text, "", text, "0"},
		"empty":                  {"", "", "", "0"},
		"last line, unfinished":  {text, "?tail=1", "four", "14"},
		"last two":               {text, "?tail=2", "three\nfour", "8"},
		"last line, finished":    {text + "\n", "?tail=1", "four\n", "14"},
		"more than there are":    {text, "?tail=99", text, "0"},
		"exactly all":            {text, "?tail=4", text, "0"},
		"none":                   {text, "?tail=0", "", "18"},
		"tail of nothing":        {"", "?tail=3", "", "0"},
		"empty lines":            {"a\n\n\n", "?tail=2", "\n\n", "2"},
		"offset":                 {text, "?offset=4", "two\nthree\nfour", "4"},
		"offset behind the end":  {text, "?offset=99", "", "99"},
		"long":                   {long, "", long, "0"},
		"tail over chunks":       {long, "?tail=2000", long[100*1000:], "100000"},
		"NUL at the start stays": {"\x00\x00a", "", "\x00\x00a", "0"},
		"follow what has ended":  {text, "?follow=true&tail=1", "four", "14"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.Says(t, "c0", "stdout", tt.written)
			w := ask(New(partsOf(f), options()), "GET", "/api/v1/cloudlets/old/output"+tt.query, "")
			if w.Code != 200 || w.Body.String() != tt.want {
				t.Errorf("status %d, %d bytes %.60q, want %d bytes %.60q", w.Code, w.Body.Len(), w.Body, len(tt.want), tt.want)
			}
			if w.Header().Get("X-Output-Offset") != tt.offset || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("headers %v, want offset %s", w.Header(), tt.offset)
			}
		})
	}
}

// TestOutputSkipsWhatWasPunchedOut: the agent frees the oldest part of a long
// output up to a byte in the middle of a block.
func TestOutputSkipsWhatWasPunchedOut(t *testing.T) {
	const size, punched = 64 << 10, 20<<10 + 123
	content := bytes.Repeat([]byte("abcdefghi\n"), size/10)
	tests := map[string]struct {
		query string
		from  int
	}{
		"from the start":        {"", punched},
		"offset inside":         {"?offset=100", punched},
		"offset behind":         {fmt.Sprint("?offset=", punched+5), punched + 5},
		"tail beyond the hole":  {"?tail=100000", punched},
		"tail after the hole":   {"?tail=1", len(content) - 10},
		"follow from the start": {"?follow=true", punched},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.Says(t, "c0", "stdout", string(content))
			punch(t, f.Path("c0", "stdout"), punched)
			w := ask(New(partsOf(f), options()), "GET", "/api/v1/cloudlets/old/output"+tt.query, "")
			if !bytes.Equal(w.Body.Bytes(), content[tt.from:]) || w.Header().Get("X-Output-Offset") != fmt.Sprint(tt.from) {
				t.Errorf("%d bytes from %s, want %d from %d: %.40q", w.Body.Len(), w.Header().Get("X-Output-Offset"), len(content)-tt.from, tt.from, w.Body)
			}
		})
	}
}

// TestOutputTellsWhatItSkipped: who reads more slowly than a cloudlet writes learns how much that cost.
func TestOutputTellsWhatItSkipped(t *testing.T) {
	const size = 64 << 20 // more than the sockets take
	f := newFake(t)
	f.Says(t, "c0", "stdout", strings.Repeat("abcdefg\n", size/8))
	srv := httptest.NewServer(New(partsOf(f), options()))
	defer srv.Close()
	resp, err := http.Get(srv.URL + base + "/cloudlets/old/output")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	punch(t, f.Path("c0", "stdout"), size-(1<<20))
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if gap, _ := strconv.ParseInt(resp.Trailer.Get("X-Output-Gap"), 10, 64); gap == 0 || gap+n+1000 != size {
		t.Errorf("%d bytes read, a gap of %q", n+1000, resp.Trailer.Get("X-Output-Gap"))
	}
}

func punch(t *testing.T, path string, upTo int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, upTo); err != nil {
		t.Skipf("punch a hole into %s: %v", path, err)
	}
}

func TestFollowOutputUntilTheEnd(t *testing.T) {
	f := newFake(t)
	f.Says(t, "c1", "stdout", "first\n")
	resp := get(t, New(partsOf(f), options()), "/api/v1/cloudlets/run/output?follow=true")
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{"first\n", "second\n"} {
		if got, err := lines.ReadString('\n'); got != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
		f.Says(t, "c1", "stdout", "second\n") // comes while we follow; the third is the last
	}
	setState(f, "c1", "v0", agent.CloudletSucceeded)
	if rest, err := io.ReadAll(lines); string(rest) != "second\n" || err != nil {
		t.Errorf("rest %q, %v", rest, err)
	}
}

func TestFollowWaitsForTheStart(t *testing.T) {
	f := newFake(t)
	go func() { // queued, then starting without a file, then running
		setState(f, "c2", "v0", agent.CloudletStarting)
		if err := os.WriteFile(f.Path("c2", "stdout"), []byte("here\n"), 0o600); err != nil {
			t.Error(err)
		}
		setState(f, "c2", "v0", agent.CloudletRunning)
		setState(f, "c2", "v0", agent.CloudletSucceeded)
	}()
	w := ask(New(partsOf(f), options()), "GET", "/api/v1/cloudlets/c2/output?follow=true", "")
	if w.Code != 200 || w.Body.String() != "here\n" {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestFollowOfWhatNeverStarts(t *testing.T) {
	f := newFake(t)
	go setState(f, "c2", "", agent.CloudletCancelled)
	if w := ask(New(partsOf(f), options()), "GET", "/api/v1/cloudlets/c2/output?follow=true", ""); w.Code != 409 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestHeadOfStreamsEnds(t *testing.T) {
	f := newFake(t)
	f.Says(t, "c1", "stdout", "text")
	h := New(partsOf(f), options())
	for _, tt := range [][2]string{{"/api/v1/cloudlets/run/output?follow=true", ""}, {"/api/v1/events", "text/event-stream"}, {"/api/v1/autoscale/events", "text/event-stream"}} {
		w := ask(h, "HEAD", tt[0], "", "Accept", tt[1]) // hangs when it follows
		if w.Code != 200 {
			t.Errorf("HEAD %s: status %d", tt[0], w.Code)
		}
	}
}

// readEvents reads n server-sent events and returns their id lines.
func readEvents(t *testing.T, r *bufio.Reader, n int) []string {
	t.Helper()
	var ids []string
	for len(ids) < n {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %v: %v", ids, err)
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			ids = append(ids, strings.TrimSpace(id))
		}
	}
	return ids
}

func TestEventStream(t *testing.T) {
	tests := map[string]struct {
		target, lastID, want string
	}{
		"from the start": {"/api/v1/events", "", "[1 2 3 4 5 6]"},
		"since":          {"/api/v1/events?since=4", "", "[5 6]"},
		"resumed":        {"/api/v1/events?since=1", "3", "[4 5 6]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			resp := get(t, New(partsOf(f), options()), tt.target, "Accept", "text/event-stream", "Last-Event-ID", tt.lastID)
			if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
				t.Fatalf("Content-Type %q", ct)
			}
			lines := bufio.NewReader(resp.Body)
			n := len(strings.Fields(tt.want))
			ids := readEvents(t, lines, n-1)
			f.Change(func() { f.Has.Events = append(f.Has.Events, agent.Event{Seq: 6, Kind: "live", Message: "now"}) })
			ids = append(ids, readEvents(t, lines, 1)...)
			if fmt.Sprint(ids) != tt.want {
				t.Errorf("ids %v, want %s", ids, tt.want)
			}
		})
	}
}

func TestEventStreamRefusals(t *testing.T) {
	f := newFake(t)
	f.Has.Oldest = 3
	h := New(partsOf(f), options())
	for lastID, status := range map[string]int{"1": 410, "abc": 422} {
		w := ask(h, "GET", "/api/v1/events", "", "Accept", "text/event-stream", "Last-Event-ID", lastID)
		if w.Code != status || w.Header().Get("Content-Type") != problem.ContentType {
			t.Errorf("Last-Event-ID %s: status %d, want %d: %s", lastID, w.Code, status, w.Body)
		}
	}
}

func TestWaitEndsWithTheCloudlet(t *testing.T) {
	f := newFake(t)
	go setState(f, "c1", "v0", agent.CloudletFailed)
	began := time.Now()
	w := ask(New(partsOf(f), options()), "GET", "/api/v1/cloudlets/run?wait=5m", "")
	if !strings.Contains(w.Body.String(), `"state":"failed"`) || time.Since(began) > patience {
		t.Errorf("after %v: %s", time.Since(began), w.Body)
	}
	w = ask(New(partsOf(f), options()), "GET", "/api/v1/cloudlets/new?wait=20ms", "")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"state":"queued"`) {
		t.Errorf("time up: status %d: %s", w.Code, w.Body)
	}
}

func TestSubmitWaitsForTheEnd(t *testing.T) {
	f := newFake(t)
	f.OnSubmit = func(*agent.Cloudlet) { go setState(f, "c7", "v0", agent.CloudletSucceeded) }
	w := ask(New(partsOf(f), options()), "POST", "/api/v1/cloudlets?wait=5m", `{"argv":["true"]}`)
	if w.Code != 201 || !strings.Contains(w.Body.String(), `"state":"succeeded"`) {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	for _, query := range []string{"?wait=20ms", ""} {
		w := ask(New(partsOf(newFake(t)), options()), "POST", "/api/v1/cloudlets"+query, `{"argv":["true"]}`)
		if w.Code != 201 || !strings.Contains(w.Body.String(), `"state":"running"`) {
			t.Errorf("%s: status %d: %s", query, w.Code, w.Body)
		}
	}
}

func TestWaitEndsWithTheOperation(t *testing.T) {
	f := newFake(t)
	go f.Change(func() { f.Has.Operations[0].State = agent.OperationSucceeded })
	w := ask(New(partsOf(f), options()), "GET", "/api/v1/operations/o0?wait=5m", "")
	if !strings.Contains(w.Body.String(), `"state":"succeeded"`) {
		t.Errorf("%s", w.Body)
	}
}
