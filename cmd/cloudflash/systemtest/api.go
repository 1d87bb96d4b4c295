package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent"
)

// Refused is an answer of the agent, as opposed to no answer.
type Refused struct {
	Status int
	Body   string
}

func (r Refused) Error() string { return fmt.Sprintf("%d %s", r.Status, r.Body) }

// List is an answer that has many of something.
type List[T any] struct {
	Items []T `json:"items"`
}

// Call sends one request to the API. A body is sent as JSON.
func Call[T any](a *Agent, method, path string, body any) (T, error) {
	var out T
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return out, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://localhost"+path, in)
	if err != nil {
		return out, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}

	resp, err := a.client.Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return out, err
	}
	if resp.StatusCode >= 400 {
		return out, Refused{resp.StatusCode, string(b)}
	}
	return out, json.Unmarshal(b, &out)
}

// Ask sends a request as it is, and returns the answer as it is.
func (a *Agent) Ask(ctx context.Context, method, target string, body []byte) (status int, kind string, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+target, bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	if body == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("Content-Type"), answer, err
}

// Must is Call for requests that must succeed.
func Must[T any](a *Agent, method, path string, body any) T {
	a.T.Helper()
	v, err := Call[T](a, method, path, body)
	if err != nil {
		a.T.Fatalf("%s %s: %v", method, path, err)
	}
	return v
}

// Create makes a VM with a policy of its own.
func (a *Agent) Create(name string, cpus float64, memoryMiB int64, policy agent.PolicyLayer) agent.VM {
	a.T.Helper()
	return Must[agent.VM](a, "POST", "/api/v1/vms", map[string]any{
		"name":          name,
		"cpus":          cpus,
		"memory_bytes":  memoryMiB << 20,
		"storage_bytes": 64 << 20,
		"autoscale":     policy,
	})
}

// Remove deletes a VM and waits until it is gone.
func (a *Agent) Remove(vm string) error {
	op, err := Call[agent.Operation](a, "DELETE", "/api/v1/vms/"+vm+"?grace=0s", nil)
	for err == nil && op.State == agent.OperationRunning {
		op, err = Call[agent.Operation](a, "GET", "/api/v1/operations/"+op.ID+"?wait=30s", nil)
	}
	if err == nil && op.State != agent.OperationSucceeded {
		err = fmt.Errorf("delete %s: %s %s", vm, op.State, op.Error)
	}
	return err
}

// MustRemove is Remove for VMs that can be deleted.
func (a *Agent) MustRemove(vm string) {
	a.T.Helper()
	if err := a.Remove(vm); err != nil {
		a.T.Fatal(err)
	}
}

// Submit starts a cloudlet and waits until it has begun.
func (a *Agent) Submit(vm, name string, argv ...string) {
	a.T.Helper()
	c := Must[agent.Cloudlet](a, "POST", "/api/v1/cloudlets", map[string]any{"vm": vm, "name": name, "argv": argv})
	Within(a.T, time.Minute, "cloudlet "+name+" has begun", func() bool {
		c = Must[agent.Cloudlet](a, "GET", "/api/v1/cloudlets/"+c.ID, nil)
		return c.State != agent.CloudletQueued && c.State != agent.CloudletStarting
	})
}

// Decisions of autoscaling about a VM, oldest first.
func (a *Agent) Decisions(vm string) []agent.Decision {
	a.T.Helper()
	all, err := Call[List[agent.Decision]](a, "GET", "/api/v1/autoscale/events?limit=1000&vm="+vm, nil)
	if r := (Refused{}); errors.As(err, &r) && r.Status == http.StatusNotFound {
		return nil // of a VM that is gone and that nothing was decided about
	}
	if err != nil {
		a.T.Fatal(err)
	}
	return all.Items
}

// Events of a kind about a VM. A kind that ends with a dot is all that begin so, an empty one is all.
func (a *Agent) Events(vmID, kind string) []agent.Event {
	a.T.Helper()
	all := Must[List[agent.Event]](a, "GET", "/api/v1/events?limit=1000", nil).Items
	return slices.DeleteFunc(all, func(e agent.Event) bool {
		wanted := kind == "" || e.Kind == kind || strings.HasSuffix(kind, ".") && strings.HasPrefix(e.Kind, kind)
		return e.VM != vmID || !wanted
	})
}

// Metric is what /metrics says of one without labels.
func (a *Agent) Metric(name string) int {
	a.T.Helper()
	resp, err := a.client.Get("http://localhost/metrics")
	if err != nil {
		a.T.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		a.T.Fatal(resp.Status, err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if err != nil {
				a.T.Fatal(err)
			}
			return int(f)
		}
	}
	a.T.Fatalf("no metric %s", name)
	return 0
}
