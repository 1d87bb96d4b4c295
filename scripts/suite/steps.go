package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A step runs on this host and writes all it has to say to out.
type step struct {
	name  string
	again string
	do    func(ctx context.Context, out io.Writer) error
}

// run runs a step, reports it, and returns whether it went well.
func (s *suite) step(ctx context.Context, st step) bool {
	if ctx.Err() != nil {
		return false
	}
	log, err := s.log(st.name)
	if err != nil {
		s.report.step(result{Name: st.name, Err: err})
		return false
	}
	defer log.Close()

	began := time.Now()
	err = st.do(ctx, log)
	if ctx.Err() != nil {
		return false // interrupted: neither well nor badly
	}
	s.report.step(result{
		Name:  st.name,
		Took:  time.Since(began),
		Err:   err,
		Log:   log.Name(),
		Again: st.again,
	})
	return err == nil
}

// log makes the file for what a step or a test says.
func (s *suite) log(name string) (*os.File, error) {
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune("/ \t", r) {
			return '-'
		}
		return r
	}, name)
	if s.options.repeat > 1 {
		name = fmt.Sprintf("%d-%s", s.round, name)
	}
	return os.Create(filepath.Join(s.report.dir, name+".log"))
}

// style checks what does not run the code.
func (s *suite) style(ctx context.Context) {
	for _, st := range []step{
		{"gofmt", "gofmt -l .", gofmt},
		{"names of kernel tests", "", names},
		{"vet", "go vet -tags nomsgpack ./...", vet},
		{"shellcheck", "shellcheck scripts/{run,test,vm,bench,example,monitoring/run} scripts/lib/*", shellcheck},
		{"lint", "go tool -modfile=scripts/tools.mod golangci-lint run --config scripts/golangci.yml ./...", lint},
	} {
		s.step(ctx, st)
	}
}

func shellcheck(ctx context.Context, out io.Writer) error {
	return bash(ctx, out, "shellcheck scripts/{run,test,vm,bench,example,monitoring/run} scripts/lib/*").Run()
}

func lint(ctx context.Context, out io.Writer) error {
	return command(ctx, out, "go", "tool", "-modfile=scripts/tools.mod", "golangci-lint", "run", "--allow-serial-runners",
		"--config", "scripts/golangci.yml", "./...").Run()
}

func gofmt(ctx context.Context, out io.Writer) error {
	var ugly bytes.Buffer
	cmd := bash(ctx, out, `git ls-files -z --cached --others --exclude-standard "*.go" |
		while IFS= read -r -d "" file; do [[ ! -e $file ]] || printf "%s\0" "$file"; done | xargs -0 gofmt -l`)
	cmd.Stdout = &ugly
	if err := cmd.Run(); err != nil {
		return err
	}
	if ugly.Len() > 0 {
		fmt.Fprint(out, ugly.String())
		return errors.New("gofmt -w these")
	}
	return nil
}

// names checks that no kernel test is where it would never run.
func names(_ context.Context, out io.Writer) error {
	files, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
		"*_test.go", ":!*_kernel_test.go").Output()
	if err != nil {
		return err
	}
	wrong := 0
	for file := range strings.SplitSeq(strings.Trim(string(files), "\x00"), "\x00") {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and git does not know yet
		}
		if err != nil {
			return err
		}
		for _, m := range testFunction.FindAllSubmatch(b, -1) {
			if kernelTestName.Match(m[1]) {
				fmt.Fprintf(out, "%s: %s\n", file, m[1])
				wrong++
			}
		}
	}
	if wrong > 0 {
		return errors.New("TestKernel…, TestSystem… and TestLong… belong in files *_kernel_test.go: elsewhere they never run")
	}
	return nil
}

func vet(ctx context.Context, out io.Writer) error {
	return bash(ctx, out, `go vet -tags nomsgpack ./...
		GOARCH=arm64 CGO_ENABLED=0 go vet -tags nomsgpack ./cgroup/... ./agent/... ./cmd/...
		env "${nvml_env[@]}" go vet -tags nomsgpack,nvml ./agent/gpu`).Run()
}

// hostPackages installs what the selected tests need of Debian.
func (s *suite) hostPackages() step {
	need := []string{"gcc=gcc"} // for the race detector
	if s.options.unit {
		need = append(need, "shellcheck=shellcheck")
	}
	if s.needVMs() {
		need = append(need, "qemu-system-x86_64=qemu-system-x86", "mke2fs=e2fsprogs")
	}
	script := `need "$@"`
	if s.options.browser {
		script += "; . scripts/lib/browser; browser_programs"
	}
	if s.options.monitoring {
		need = append(need, "jq=jq", "curl=curl", "python3=python3")
		script += "; . scripts/lib/monitoring; prometheus_programs"
	}
	return step{"programs of this host", "", func(ctx context.Context, out io.Writer) error {
		return bash(ctx, out, script, need...).Run()
	}}
}

// images makes what the test VMs boot, where it is missing.
func (s *suite) images() step {
	return step{"images of the test VMs", "", func(ctx context.Context, out io.Writer) error {
		for _, kernel := range s.vmKernels() {
			if err := command(ctx, out, "scripts/vm", "--kernel", kernel, "--images").Run(); err != nil {
				return err
			}
		}
		return nil
	}}
}

// monitoringFiles checks what needs no agent: rules, configurations, the Grafana dashboard.
func monitoringFiles() step {
	return step{"files of the monitoring", "./scripts/test --monitoring", func(ctx context.Context, out io.Writer) error {
		return bash(ctx, out, ". scripts/lib/monitoring; prometheus_programs; monitoring_files").Run()
	}}
}
