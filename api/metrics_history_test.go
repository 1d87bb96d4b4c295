package api

import (
	"strings"
	"testing"
)

func TestMetricsAsCSV(t *testing.T) {
	const want = "t,time,cpus,cpus_min,cpus_max\n" +
		"100,1970-01-01T00:01:40Z,1,0.5,2\n" +
		"101,1970-01-01T00:01:41Z,,,\n" +
		"102,1970-01-01T00:01:42Z,0.25,0,1000000000000\n"
	for accept, csv := range map[string]bool{"text/csv": true, "text/csv; q=0.9, application/json; q=0.1": true, "": false, "*/*": false, "application/json, text/csv": false, "text/html": false} {
		w := ask(New(partsOf(newFake(t)), options()), "GET", "/api/v1/vms/web/metrics?fields=cpus", "", "Accept", accept)
		if is := strings.HasPrefix(w.Header().Get("Content-Type"), "text/csv"); w.Code != 200 || is != csv {
			t.Errorf("Accept %q: status %d, %s", accept, w.Code, w.Header().Get("Content-Type"))
		} else if csv && w.Body.String() != want {
			t.Errorf("Accept %q: %s", accept, w.Body)
		}
		if w.Header().Get("Vary") != "Accept" {
			t.Errorf("Vary %q", w.Header().Get("Vary"))
		}
	}
}
