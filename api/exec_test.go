package api

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/api/apitest"

	"github.com/coder/websocket"
)

// dialExec opens the WebSocket of a command and says what to run.
func dialExec(t *testing.T, f *apitest.Agent, vm, start string) (context.Context, *websocket.Conn) {
	t.Helper()
	srv := httptest.NewServer(New(partsOf(f), options()))
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, srv.URL+base+"/vms/"+vm+"/exec", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	say(ctx, t, conn, websocket.MessageText, start)
	return ctx, conn
}

func say(ctx context.Context, t *testing.T, conn *websocket.Conn, kind websocket.MessageType, text string) {
	t.Helper()
	if err := conn.Write(ctx, kind, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// hear reads the next message; output is marked by its channel.
func hear(ctx context.Context, t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	kind, b, err := conn.Read(ctx)
	if err != nil {
		return "closed: " + err.Error()
	}
	if kind == websocket.MessageBinary {
		return map[byte]string{execStdout: "out ", execStderr: "err "}[b[0]] + string(b[1:])
	}
	return string(b)
}

func TestExecCarriesInputAndOutput(t *testing.T) {
	ctx, conn := dialExec(t, newFake(t), "web", `{"argv":["tr","a-z"]}`)
	want := func(text string) {
		t.Helper()
		if got := hear(ctx, t, conn); got != text {
			t.Fatalf("%s, want %s", got, text)
		}
	}
	want("err [tr a-z]")
	for _, piece := range []string{"ab", "cd"} {
		say(ctx, t, conn, websocket.MessageBinary, piece)
		want(`{"taken":true}`)
	}
	say(ctx, t, conn, websocket.MessageText, `{"end_input":true}`)
	want("out ABCD")
	want(`{"end":{"exit_code":3,"signal":"","reason":""}}`)
	if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Error(err)
	}
}

func TestExecPassesTheSizeOfTheTerminal(t *testing.T) {
	ctx, conn := dialExec(t, newFake(t), "web", `{"argv":["tr"],"terminal":true,"rows":24,"cols":80}`)
	_ = hear(ctx, t, conn)
	if got := hear(ctx, t, conn); got != "out {24 80}" {
		t.Error(got)
	}
}

func TestExecPassesSignals(t *testing.T) {
	ctx, conn := dialExec(t, newFake(t), "web", `{"argv":["signalled"]}`)
	if got := hear(ctx, t, conn); got != "out up\n" {
		t.Fatal(got)
	}
	say(ctx, t, conn, websocket.MessageText, `{"signal":"SIGUSR2"}`)
	if got := hear(ctx, t, conn); got != `{"end":{"exit_code":null,"signal":"SIGUSR2","reason":""}}` {
		t.Error(got)
	}

	for _, signal := range []string{"SIGKILL", "SIGSTOP", "9", "sigint"} {
		ctx, conn := dialExec(t, newFake(t), "web", `{"argv":["signalled"]}`)
		hear(ctx, t, conn)
		say(ctx, t, conn, websocket.MessageText, `{"signal":"`+signal+`"}`)
		if got := hear(ctx, t, conn); strings.Contains(got, `"signal":"S`) {
			t.Errorf("%s was passed on: %s", signal, got)
		}
	}
}

func TestExecOfWhatIsNotThere(t *testing.T) {
	ctx, conn := dialExec(t, newFake(t), "nope", `{"argv":["x"]}`)
	if got := hear(ctx, t, conn); !strings.Contains(got, `"status":404`) {
		t.Error(got)
	}
	ctx, conn = dialExec(t, newFake(t), "web", `{"argv":`)
	if got := hear(ctx, t, conn); !strings.Contains(got, `"code":"bad_json"`) {
		t.Error(got)
	}
	w := httptest.NewRecorder()
	New(partsOf(newFake(t)), options()).ServeHTTP(w, httptest.NewRequest("GET", base+"/vms/web/exec", nil))
	if w.Code != 426 || !strings.Contains(w.Body.String(), "websocket_required") {
		t.Error(w.Code, w.Body)
	}
}

// A client that is gone, or that breaks the rules, ends its command.
func TestExecEndsWithItsClient(t *testing.T) {
	for name, leave := range map[string]func(context.Context, *testing.T, *websocket.Conn){
		"hangs up":       func(_ context.Context, _ *testing.T, c *websocket.Conn) { _ = c.CloseNow() },
		"talks nonsense": func(ctx context.Context, t *testing.T, c *websocket.Conn) { say(ctx, t, c, websocket.MessageText, "{") },
		"sends a flood": func(ctx context.Context, t *testing.T, c *websocket.Conn) {
			for range 1000 {
				if c.Write(ctx, websocket.MessageBinary, make([]byte, 1000)) != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			ctx, conn := dialExec(t, f, "web", `{"argv":["stuck"]}`)
			_ = hear(ctx, t, conn)
			leave(ctx, t, conn)
			for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				f.Mu.Lock()
				hungUp := f.Got.HungUp
				f.Mu.Unlock()
				if hungUp {
					return
				}
				if time.Now().After(end) {
					t.Fatal("the command goes on")
				}
			}
		})
	}
}

var _ VMs = (*agent.Agent)(nil)
