package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// unitTests is where tests run that need no kernel of their own.
const unitTests = "unit"

// unit runs go test over packages and reports every test.
func (s *suite) unit(name, tags string, packages []string, env ...string) step {
	return step{name, "", func(ctx context.Context, out io.Writer) error {
		// Without the paths of this checkout in them, other checkouts have what was built.
		// Results are not taken from the cache: it does not see what a program reads that a test runs.
		args := []string{"test", "-race", "-json", "-trimpath", "-count=1", "-tags", tags}
		if len(packages) == 0 {
			packages = []string{"./..."}
		}

		pr, pw := io.Pipe()
		cmd := with(command(ctx, out, "go", append(args, packages...)...), env...)
		cmd.Stdout = pw
		done := make(chan error, 1)
		go func() {
			err := cmd.Run()
			_ = pw.Close()
			done <- err
		}()
		u := unitReport{suite: s, out: out, said: map[string]*bytes.Buffer{}}
		failed := u.read(pr)
		if err := <-done; err != nil && failed == 0 {
			return err
		}
		if failed > 0 {
			return errTold
		}
		return nil
	}}
}

// errTold is the failure of a step whose tests have been told one by one.
var errTold = errors.New("see its tests")

// event is one line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Elapsed    float64
	Output     string
}

// unitReport turns events into results.
type unitReport struct {
	suite *suite
	out   io.Writer
	said  map[string]*bytes.Buffer // by package and test that has not ended
}

// read reads events to their end and returns how many tests and packages failed.
func (u *unitReport) read(r io.Reader) int {
	failed := 0
	broken := map[string]bool{} // packages in which a test failed
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		var e event
		if json.Unmarshal(scan.Bytes(), &e) != nil {
			fmt.Fprintf(u.out, "%s\n", scan.Bytes())
			continue
		}
		if e.Package == "" {
			e.Package, _, _ = strings.Cut(e.ImportPath, " [") // cloudflash/x [cloudflash/x.test]
		}
		if e.Output != "" {
			fmt.Fprint(u.out, e.Output)
		}

		top, _, sub := strings.Cut(e.Test, "/")
		key := e.Package + " " + top
		switch e.Action {
		case "output", "build-output":
			if u.said[key] == nil {
				u.said[key] = &bytes.Buffer{}
			}
			u.said[key].WriteString(e.Output)
		case "pass", "fail", "skip":
			if sub {
				continue
			}
			if e.Action == "fail" && e.Test == "" && broken[e.Package] {
				continue // its tests have been told
			}
			if e.Action == "fail" {
				failed++
				broken[e.Package] = true
			}
			u.end(e, key)
		}
	}
	if err := scan.Err(); err != nil {
		fmt.Fprintf(u.out, "read the events of go test: %v\n", err)
		_, _ = io.Copy(io.Discard, r)
		failed++
	}
	return failed
}

// end reports a test, or a package that did not come to its tests.
func (u *unitReport) end(e event, key string) {
	dir := "." + strings.TrimPrefix(e.Package, "cloudflash")
	said := u.said[key]
	delete(u.said, key)
	switch {
	case e.Test == "" && e.Action == "fail":
		e.Test = "package"
	case e.Test == "":
		return
	case e.Action == "skip":
		if !kernelTestName.MatchString(e.Test) {
			u.suite.report.skip()
		}
		return
	}

	res := result{
		Name:  strings.TrimPrefix(dir, "./") + " " + e.Test,
		Where: unitTests,
		Took:  time.Duration(e.Elapsed * float64(time.Second)),
	}
	if e.Action == "fail" {
		res.Err = errors.New("failed")
		res.Again = fmt.Sprintf("go test -race -tags nomsgpack -run '^%s$' %s", e.Test, dir)
		if e.Test == "package" {
			res.Again = "go test -race -tags nomsgpack " + dir
		}
		if log, err := u.suite.log(res.title()); err == nil {
			defer log.Close()
			if said != nil {
				_, _ = log.Write(said.Bytes())
			}
			res.Log = log.Name()
		}
	}
	u.suite.report.unitTest(res)
}
