package metrics

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const goodProm = "# HELP backup_age_seconds Age of the last backup.\n# TYPE backup_age_seconds gauge\nbackup_age_seconds{site=\"a\"} 12\n"

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// withFiles is the page and what the source of *.prom files says went wrong.
func withFiles(t *testing.T, m *Metrics) (page, wrong string) {
	t.Helper()
	page = scrape(m, "")
	return page, m.logged[textfileName]
}

func openTextfile(t *testing.T) (*Metrics, string) {
	t.Helper()
	m, _ := open(withVMs(1))
	dir := t.TempDir()
	if err := m.Textfile(dir); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.prom", goodProm)
	if err := os.Chtimes(filepath.Join(dir, "a.prom"), time.Time{}, time.Unix(1700000000, 0)); err != nil {
		t.Fatal(err)
	}
	return m, dir
}

const goodLine = `backup_age_seconds{site="a"} 12`

func TestMetricsFromFiles(t *testing.T) {
	m, dir := openTextfile(t)
	write(t, dir, "b.prom", "rows_total{table=\"x\"} 7\n# TYPE lag_seconds histogram\nlag_seconds_bucket{le=\"1\"} 2\nlag_seconds_bucket{le=\"+Inf\"} 3\nlag_seconds_sum 4\nlag_seconds_count 3\n")
	write(t, dir, "readme.txt", "not for us")
	write(t, dir, ".hidden.prom", "nor this")
	text, wrong := withFiles(t, m)
	wantLines(t, text, goodLine, "# HELP backup_age_seconds Age of the last backup.", "# HELP rows_total Metric read from b.prom",
		`rows_total{table="x"} 7`, `lag_seconds_bucket{le="1"} 2`,
		`cloudflash_textfile_mtime_seconds{file="a.prom"} 1.7e+09`, "cloudflash_textfile_scrape_error 0",
		`cloudflash_textfile_error{file="b.prom"} 0`, `cloudflash_collector_success{collector="textfile"} 1`)
	if wrong != "" {
		t.Error(wrong)
	}
	om := scrape(m, openMetricsAccept)
	wantLines(t, om, goodLine+".0", `lag_seconds_bucket{le="1.0"} 2`, "# UNIT backup_age_seconds seconds")
}

func TestOneBadFileDoesNotSpoilTheRest(t *testing.T) {
	for name, test := range map[string]struct{ text, says string }{
		"no format":           {"what is this?\n", "not in the Prometheus text format"},
		"half a line":         {"backup_bytes 1", "not in the Prometheus text format"},
		"binary":              {"\x00\x01\x02\n", "not in the Prometheus text format"},
		"a timestamp":         {"backup_bytes 1 1700000000000\n", "timestamp"},
		"a name of ours":      {"cloudflash_vms 1000\n", "are the agent's"},
		"a name of Go's":      {"go_goroutines 1000\n", "are the agent's"},
		"a label of theirs":   {"backup_bytes{__name__=\"cloudflash_vms\"} 1\n", "format"},
		"a label twice":       {"backup_bytes{a=\"1\",a=\"2\"} 1\n", ""},
		"a series twice":      {"backup_bytes 1\nbackup_bytes 2\n", "twice"},
		"a series of another": {"# TYPE backup_age_seconds gauge\nbackup_age_seconds{site=\"a\"} 13\n", "in a.prom already"},
		"another type":        {"# TYPE backup_age_seconds counter\nbackup_age_seconds 13\n", "is a gauge in a.prom"},
		"a bad value":         {"backup_bytes many\n", "format"},
		"no UTF-8":            {"backup_bytes{a=\"\xff\"} 1\n", ""},
		"too long":            {strings.Repeat("# "+strings.Repeat("x", 97)+"\n", maxFileBytes/100+1), "more than"},
		"too many series":     {manySeries(maxSeries), "more than"},
		"too many buckets":    {"# TYPE backup_bytes histogram\n" + manyBuckets(maxSeries), "more than"},
		"a bucket twice":      {"# TYPE backup_bytes histogram\nbackup_bytes_bucket{le=\"1\"} 1\nbackup_bytes_bucket{le=\"1.0\"} 2\nbackup_bytes_bucket{le=\"+Inf\"} 2\nbackup_bytes_sum 2\nbackup_bytes_count 2\n", "le="},
		"a quantile twice":    {"# TYPE backup_bytes summary\nbackup_bytes{quantile=\"0\"} 1\nbackup_bytes{quantile=\"-0\"} 2\nbackup_bytes_sum 2\nbackup_bytes_count 2\n", "quantile="},
		"a counter two ways":  {"# TYPE backup_bytes counter\nbackup_bytes 1\n# TYPE backup_bytes_total gauge\nbackup_bytes_total 2\n", "the counter backup_bytes"},
		"a histogram's count": {"backup_bytes_count 3\n# TYPE backup_bytes histogram\nbackup_bytes_bucket{le=\"+Inf\"} 3\nbackup_bytes_sum 1\nbackup_bytes_count 3\n", "backup_bytes_count"},
	} {
		t.Run(name, func(t *testing.T) {
			m, dir := openTextfile(t)
			write(t, dir, "b.prom", test.text)
			write(t, dir, "c.prom", "third 3\n")
			text, wrong := withFiles(t, m)
			wantLines(t, text, goodLine, "third 3", "cloudflash_textfile_scrape_error 1", `cloudflash_textfile_error{file="a.prom"} 0`,
				`cloudflash_textfile_error{file="b.prom"} 1`, `cloudflash_collector_success{collector="textfile"} 0`, "cloudflash_vms 12345678")
			if !strings.Contains(wrong, "b.prom: ") || !strings.Contains(wrong, test.says) {
				t.Errorf("says %q", wrong)
			}
			for _, line := range strings.Split(text, "\n") {
				if strings.HasPrefix(line, "backup_bytes") || strings.HasSuffix(line, " 13") {
					t.Errorf("%s was taken from a bad file", line)
				}
			}
			write(t, dir, "b.prom", "backup_bytes 1\n") // mended
			if text, wrong = withFiles(t, m); wrong != "" {
				t.Errorf("still says %q", wrong)
			}
			wantLines(t, text, "backup_bytes 1", "cloudflash_textfile_scrape_error 0")
		})
	}
}

func manySeries(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("m{i=\"" + string(appendNumber(nil, float64(i))) + "\"} 1\n")
	}
	return b.String()
}

func manyBuckets(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("backup_bytes_bucket{le=\"" + string(appendNumber(nil, float64(i))) + "\"} 1\n")
	}
	return b.String()
}

// A name that one metric takes on the page is not another's, in any file.
func TestNamesOfTheParts(t *testing.T) {
	const histogram = "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3\nh_sum 1\nh_count 3\n"
	const counter = "# TYPE h counter\nh 1\n"
	for name, test := range map[string]struct{ one, other string }{
		"count":          {histogram, "h_count 7\n"},
		"sum":            {histogram, "# TYPE h_sum gauge\nh_sum 7\n"},
		"bucket":         {histogram, "h_bucket{le=\"+Inf\"} 7\n"},
		"summary":        {"# TYPE h summary\nh_sum 1\nh_count 3\n", "h_count 7\n"},
		"total":          {counter, "# TYPE h_total counter\nh_total 7\n"},
		"total, untyped": {counter, "h_total 7\n"},
	} {
		for order, files := range map[string][2]string{"": {test.one, test.other}, " first": {test.other, test.one}} {
			t.Run(name+order, func(t *testing.T) {
				m, dir := openTextfile(t)
				write(t, dir, "b.prom", files[0])
				write(t, dir, "c.prom", files[1])
				text, wrong := withFiles(t, m)
				wantLines(t, text, goodLine, `cloudflash_textfile_error{file="b.prom"} 0`, `cloudflash_textfile_error{file="c.prom"} 1`)
				if !strings.Contains(wrong, "c.prom: left out") || !strings.Contains(wrong, "in b.prom") {
					t.Errorf("says %q", wrong)
				}
				for _, page := range []string{text, scrape(m, openMetricsAccept)} {
					once(t, page)
				}
			})
		}
	}
}

// once complains of a series or a type that is on a page twice.
func once(t *testing.T, page string) {
	t.Helper()
	seen := map[string]bool{}
	for line := range strings.SplitSeq(page, "\n") {
		what := line[:max(strings.LastIndexByte(line, ' '), 0)]
		if line == "" || strings.HasPrefix(line, "# HELP") || strings.HasPrefix(line, "# UNIT") {
			continue
		}
		if seen[what] {
			t.Errorf("%s is there twice", what)
		}
		seen[what] = true
	}
}

func TestFileNamesThatAreNoText(t *testing.T) {
	m, dir := openTextfile(t)
	write(t, dir, "x\xff.prom", "first 1\n")
	write(t, dir, "x\xfe.prom", "second 2\n")
	write(t, dir, `"x\xff.prom"`+".prom", "third 3\n")
	text, wrong := withFiles(t, m)
	if wrong != "" {
		t.Error(wrong)
	}
	once(t, text)
	wantLines(t, text, "first 1", "second 2", "third 3", `cloudflash_textfile_error{file="\"x\\xff.prom\""} 0`, `cloudflash_textfile_error{file="\"x\\xfe.prom\""} 0`,
		`# HELP first Metric read from "x\\xff.prom"`)
}

func TestAnotherHelpIsReportedAndTheFirstStays(t *testing.T) {
	m, dir := openTextfile(t)
	write(t, dir, "b.prom", "# HELP backup_age_seconds Something else.\n# TYPE backup_age_seconds gauge\nbackup_age_seconds{site=\"b\"} 13\n")
	text, wrong := withFiles(t, m)
	wantLines(t, text, goodLine, `backup_age_seconds{site="b"} 13`, "# HELP backup_age_seconds Age of the last backup.",
		`cloudflash_textfile_error{file="b.prom"} 1`, "cloudflash_textfile_scrape_error 1")
	if !strings.Contains(wrong, "help of backup_age_seconds differs from that in a.prom") {
		t.Errorf("says %q", wrong)
	}
}

func TestOnlyPlainFilesAreRead(t *testing.T) {
	m, dir := openTextfile(t)
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, filepath.Dir(secret), "secret", "secret 1\n")
	if err := os.Symlink(secret, filepath.Join(dir, "link.prom")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(secret, filepath.Join(dir, "hard.prom")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe.prom"), 0o600); err != nil { // nobody writes: opening it would wait
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.prom"), 0o700); err != nil {
		t.Fatal(err)
	}
	text, wrong := withFiles(t, m)
	wantLines(t, text, goodLine, `cloudflash_textfile_error{file="link.prom"} 1`, `cloudflash_textfile_error{file="hard.prom"} 1`,
		`cloudflash_textfile_error{file="pipe.prom"} 1`, `cloudflash_textfile_error{file="dir.prom"} 1`)
	if strings.Contains(text, "\nsecret") {
		t.Error("a file from elsewhere was read")
	}
	for _, says := range []string{"link.prom: is a symbolic link", "hard.prom: has 2 names", "pipe.prom: is no regular file", "dir.prom: is no regular file"} {
		if !strings.Contains(wrong, says) {
			t.Errorf("%q does not say %q", wrong, says)
		}
	}
}

func TestFilesComeAndGo(t *testing.T) {
	m, dir := openTextfile(t)
	wantLines(t, scrape(m, ""), goodLine)
	write(t, dir, "a.new", strings.Replace(goodProm, "12", "99", 1)) // as writers should: of the same size, and renamed
	if err := os.Rename(filepath.Join(dir, "a.new"), filepath.Join(dir, "a.prom")); err != nil {
		t.Fatal(err)
	}
	wantLines(t, scrape(m, ""), `backup_age_seconds{site="a"} 99`)
	if err := os.Remove(filepath.Join(dir, "a.prom")); err != nil {
		t.Fatal(err)
	}
	if text := scrape(m, ""); strings.Contains(text, "backup_age") || strings.Contains(text, "a.prom") {
		t.Error("the file is gone, its metrics are not")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	wantLines(t, scrape(m, ""), "cloudflash_textfile_scrape_error 1", `cloudflash_collector_success{collector="textfile"} 0`, "cloudflash_vms 12345678")
}

func TestTooManyFiles(t *testing.T) {
	m, dir := openTextfile(t)
	for i := range maxFiles + 5 {
		write(t, dir, "n"+string(appendNumber(nil, float64(100+i)))+".prom", "x{i=\""+string(appendNumber(nil, float64(i)))+"\"} 1\n")
	}
	text, wrong := withFiles(t, m)
	if n := strings.Count(text, "\nx{"); n != maxFiles-1 {
		t.Errorf("%d files were read beside a.prom", n)
	}
	if !strings.Contains(wrong, "only the first 100 files are read") {
		t.Errorf("says %q", wrong)
	}
	if strings.Count(text, "cloudflash_textfile_error{") > maxFiles {
		t.Error("more series than files that are read")
	}
}

func FuzzParseProm(f *testing.F) {
	f.Add([]byte(goodProm))
	f.Add([]byte("# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3\nh_sum 1\nh_count 3\n"))
	f.Add([]byte("# TYPE s summary\ns{quantile=\"NaN\"} 3\ns{quantile=\"NaN\"} 4\ns_sum 1\ns_count 3\n"))
	f.Add([]byte("x{a=\"\\\\\"} NaN\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		families, err := parseProm(strings.NewReader(string(text)))
		if err != nil {
			return
		}
		m := newMerge()
		if m.add("a.prom", families) != nil {
			return
		}
		for _, openMetrics := range []bool{false, true} {
			p := &page{openMetrics: openMetrics}
			if err := p.families(m.families(), ourNames()); err != nil {
				t.Fatalf("%q cannot be served: %v", text, err)
			}
			once(t, string(p.b))
			if !openMetrics {
				if _, err := parseProm(strings.NewReader(string(p.b))); err != nil {
					t.Fatalf("%q is served as %q: %v", text, p.b, err)
				}
			}
		}
	})
}
