package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

func get(path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w
}

func TestFilesHeadersAndETag(t *testing.T) {
	w := get("/")
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := get("/", "If-None-Match", w.Header().Get("ETag")); w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("revalidation: %d", w.Code)
	}
	for _, path := range []string{"/nothing", "/static/index.html", "/../web.go", "/%2e%2e/web.go", "/vms", "/vms/a/b", "/memories", "/pages/nothing.js"} {
		if w := get(path); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestPagesAreToldApartInTheBrowser(t *testing.T) {
	want := get("/").Body.String()
	for _, path := range []string{"/autoscaling", "/memory", "/prometheus", "/vms/web", "/vms/01JAX.web_2-%C3%A4", "/memory/"} {
		if w := get(path); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestFilesArePackedForWhoAsks(t *testing.T) {
	plain := get("/app.js")
	packed := get("/app.js", "Accept-Encoding", "br, gzip;q=0.8")
	if packed.Header().Get("Content-Encoding") != "gzip" || packed.Header().Get("ETag") == plain.Header().Get("ETag") {
		t.Errorf("%v", packed.Header())
	}
	r, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, plain.Body.Bytes()) {
		t.Errorf("unpacked: %v, %d bytes for %d", err, len(b), plain.Body.Len())
	}
	for _, no := range []string{"", "identity", "gzip;q=0", "gzip; q=0.0", "x-gzip"} {
		if w := get("/app.js", "Accept-Encoding", no); w.Header().Get("Content-Encoding") != "" {
			t.Errorf("%q: packed", no)
		}
	}
}

// Every module that a module imports is there, by the path it names.
func TestModulesFindEachOther(t *testing.T) {
	seen := map[string]bool{}
	var load func(name string)
	load = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		w := get(name)
		if w.Code != 200 || !strings.Contains(w.Header().Get("Content-Type"), "javascript") {
			t.Errorf("%s: %d %s", name, w.Code, w.Header().Get("Content-Type"))
		}
		if strings.HasPrefix(name, "/vendor/") {
			return
		}
		for _, m := range regexp.MustCompile(`(?m)(?:^import .*?|\bimport\()"([^"]+)"`).FindAllStringSubmatch(w.Body.String(), -1) {
			load(m[1])
		}
	}
	load("/app.js")
	_ = fs.WalkDir(files, "static", func(name string, _ fs.DirEntry, _ error) error {
		if name = strings.TrimPrefix(name, "static"); strings.HasSuffix(name, ".js") && !seen[name] {
			t.Errorf("%s is imported by nobody", name)
		}
		return nil
	})
	if !seen["/vendor/chart.js"] {
		t.Errorf("only %d modules found", len(seen))
	}
}

// The rules that the page offers are those that promtool has tested.
func TestRulesAreTheTestedOnes(t *testing.T) {
	want, err := os.ReadFile("../scripts/monitoring/rules/cloudflash.yml")
	if err != nil {
		t.Fatal(err)
	}
	if get("/prometheus/rules.yml").Body.String() != string(want) {
		t.Error("they differ: cp scripts/monitoring/rules/cloudflash.yml web/static/prometheus/rules.yml")
	}
}

func TestEverythingThePageNamesIsThere(t *testing.T) {
	page := get("/").Body.String()
	for _, m := range regexp.MustCompile(`(?:src|href)="(/[^"]*)"`).FindAllStringSubmatch(page, -1) {
		if w := get(m[1]); w.Code != 200 {
			t.Errorf("%s: %d", m[1], w.Code)
		}
	}
	if strings.Contains(page, "//cdn") || regexp.MustCompile(`(?:src|href)="https?:`).MatchString(page) {
		t.Error("the page loads something from elsewhere")
	}
	if regexp.MustCompile(`\son[a-z]+="|<style|<script>|style="`).MatchString(page) {
		t.Error("the page has inline code, which its own policy forbids")
	}
}
