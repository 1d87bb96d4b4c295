package web

import (
	"net/http/httptest"
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
	for _, path := range []string{"/nothing", "/static/index.html", "/../web.go", "/%2e%2e/web.go"} {
		if w := get(path); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
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
