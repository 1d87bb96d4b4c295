package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"cloudflash/agent"
)

type hostOutput struct{ Body agent.Host }

func (s *server) showHost(context.Context, *struct{}) (*hostOutput, error) {
	return &hostOutput{Body: s.parts.Host.Host()}, nil
}

func (s *server) checkHost(ctx context.Context, in *Paging) (*listOutput[agent.Check], error) {
	return cut(s.parts.Host.HostChecks(ctx), *in, func(c agent.Check) cursor { return cursor{Key: c.Name} })
}

func (s *server) listOperations(_ context.Context, in *Paging) (*listOutput[agent.Operation], error) {
	return cut(s.parts.Host.Operations(), *in, func(op agent.Operation) cursor { return cursor{op.CreatedAt.UnixNano(), op.ID} })
}

type showOperationInput struct {
	ID string `path:"id" maxLength:"128"`
	Waiting
}

func (s *server) showOperation(ctx context.Context, in *showOperationInput) (*operationOutput, error) {
	wait, err := duration("wait", in.Wait, maxWait)
	if err != nil {
		return nil, err
	}
	var op agent.Operation
	err = until(ctx, wait, s.parts.Host.Updates, func() (bool, error) {
		op, err = s.parts.Host.Operation(in.ID)
		return op.State != agent.OperationRunning, err
	})
	if err != nil {
		return nil, err
	}
	return &operationOutput{Location: base + "/operations/" + op.ID, Body: op}, nil
}

// healthTimeout bounds the checks of /health: a probe that hangs is a failure.
const healthTimeout = 3 * time.Second

// health tries what the agent lives by, and answers 503 when something fails.
func (s *server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	out := struct {
		Status string        `json:"status"`
		Checks []agent.Check `json:"checks"`
	}{"ok", s.parts.Host.Health(ctx)}
	status := http.StatusOK
	if !s.isReady() {
		out.Checks = append(out.Checks, agent.Check{Name: "recovery", Detail: "still making the kernel agree with the store"})
	}
	for _, c := range out.Checks {
		if !c.OK {
			out.Status, status = "degraded", http.StatusServiceUnavailable
		}
	}
	answer(w, status, out)
}

func (s *server) isReady() bool {
	select {
	case <-s.parts.Host.Ready():
		return true
	default:
		return false
	}
}

func (s *server) livez(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	if !s.isReady() {
		answer(w, http.StatusServiceUnavailable, map[string]string{"status": "recovering"})
		return
	}
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone: nobody to tell
}
