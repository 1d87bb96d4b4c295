package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// reach is what is to be tested: packages as ./agent/guest.
type reach struct {
	unit       []string
	kernel     []string
	browser    bool
	monitoring bool
}

// String names the packages, and what else is to be tested.
func (r reach) String() string {
	var parts []string
	if len(r.unit) > 0 {
		parts = append(parts, "unit tests of "+strings.Join(r.unit, " "))
	}
	if len(r.kernel) > 0 {
		parts = append(parts, "kernel tests of "+strings.Join(r.kernel, " "))
	}
	if r.browser {
		parts = append(parts, "the dashboard")
	}
	if r.monitoring {
		parts = append(parts, "the monitoring")
	}
	return cmp.Or(strings.Join(parts, "; "), "nothing that is tested")
}

// A goPackage is what go list says of one.
type goPackage struct {
	Dir          string // ./agent/guest
	ImportPath   string
	Deps         []string
	TestImports  []string
	XTestImports []string
}

// findReach selects packages by name, and with --changed those that a change reaches.
func findReach(ctx context.Context, o options) (reach, error) {
	packages, err := listPackages(ctx)
	if err != nil {
		return reach{}, err
	}
	kernel, err := kernelPackages()
	if err != nil {
		return reach{}, err
	}

	r := reach{
		kernel:     kernel,
		browser:    true,
		monitoring: true,
	}
	for _, p := range packages {
		r.unit = append(r.unit, p.Dir)
	}
	if o.changed {
		files, err := changedFiles(ctx, cmp.Or(o.since, upstream(ctx)))
		if err != nil {
			return reach{}, err
		}
		r = reached(packages, kernel, files)
	}
	if len(o.packages) > 0 {
		for _, p := range o.packages {
			if !slices.ContainsFunc(packages, func(q goPackage) bool { return below(q.Dir, p) }) {
				return reach{}, fmt.Errorf("no package %s; they are named from the root of the repository, such as ./agent/guest", p)
			}
		}
		others := func(dir string) bool {
			return !slices.ContainsFunc(o.packages, func(p string) bool { return below(dir, p) })
		}
		r.unit = slices.DeleteFunc(r.unit, others)
		r.kernel = slices.DeleteFunc(r.kernel, others)
	}
	if o.run != nil {
		r.kernel = slices.DeleteFunc(r.kernel, func(p string) bool { return !hasTest(p, o.run) })
	}
	return r, nil
}

// below is whether a package is the one that is named, or below ./agent/... .
func below(dir, name string) bool {
	all, tree := strings.CutSuffix(name, "/...")
	return dir == all || tree && strings.HasPrefix(dir, all+"/")
}

// hasTest is whether a kernel test of a package has a name that matches: what
// has none need not be compiled.
func hasTest(dir string, name *regexp.Regexp) bool {
	files, err := filepath.Glob(filepath.Join(dir, "*_kernel_test.go"))
	if err != nil {
		return false
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, m := range testFunction.FindAllSubmatch(b, -1) {
			if kernelTestName.Match(m[1]) && name.Match(m[1]) {
				return true
			}
		}
	}
	return false
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// kernelPackages is where kernel tests are.
func kernelPackages() ([]string, error) {
	out, err := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*_kernel_test.go").Output()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for file := range strings.Lines(string(out)) {
		if _, err := os.Stat(strings.TrimSpace(file)); err == nil {
			dirs = append(dirs, "./"+filepath.Dir(strings.TrimSpace(file)))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs), nil
}

func listPackages(ctx context.Context) ([]goPackage, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-tags", "nomsgpack", "-json=Dir,ImportPath,Deps,TestImports,XTestImports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, err
	}

	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		dir, err := filepath.EvalSymlinks(p.Dir)
		if err != nil {
			return nil, err
		}
		if dir, err = filepath.Rel(root, dir); err != nil {
			return nil, err
		}
		p.Dir = "./" + dir
		all = append(all, p)
	}
}

// upstream is the branch that this one follows, or else HEAD.
func upstream(ctx context.Context) string {
	if err := exec.CommandContext(ctx, "git", "rev-parse", "--verify", "--quiet", "@{upstream}").Run(); err != nil {
		return "HEAD"
	}
	return "@{upstream}"
}

// changedFiles is what differs from a revision, in commits, in the work tree
// and in files that git does not know yet.
func changedFiles(ctx context.Context, since string) ([]string, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", args...).Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return "", fmt.Errorf("git %s: %s", args[0], bytes.TrimSpace(exit.Stderr))
		}
		return string(out), err
	}
	if strings.HasPrefix(since, "-") {
		return nil, fmt.Errorf("%q is not a revision", since)
	}

	base, err := git("merge-base", since, "HEAD")
	if err != nil {
		return nil, err
	}
	tracked, err := git("diff", "-z", "--name-only", "--no-renames", strings.TrimSpace(base))
	if err != nil {
		return nil, err
	}
	untracked, err := git("ls-files", "-z", "--others", "--exclude-standard")
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(tracked+untracked, func(r rune) bool { return r == 0 }), nil
}

// reached is what changed files can break.
func reached(packages []goPackage, kernel, files []string) reach {
	var r reach
	changed := map[string]bool{} // import paths
	everything := false
	for _, file := range files {
		switch {
		case strings.HasPrefix(file, "scripts/monitoring/"):
			r.monitoring = true
		case strings.HasSuffix(file, ".md") || file == "LICENSE" || file == ".gitignore":
		case file == "go.mod" || file == "go.sum" || strings.HasPrefix(file, ".ci/"):
			everything = true
		case strings.HasPrefix(file, "web/browser/"):
			r.browser = true
		case strings.HasPrefix(file, "scripts/") && !strings.HasPrefix(file, "scripts/suite/"):
			everything = true
		default:
			changed[owner(packages, file)] = true
		}
	}
	if everything {
		for _, p := range packages {
			changed[p.ImportPath] = true
		}
	}
	if len(changed) == 0 {
		return r
	}

	byPath := map[string]goPackage{}
	for _, p := range packages {
		byPath[p.ImportPath] = p
	}
	// touched is whether a package, or what it needs, has changed.
	touched := func(p goPackage) bool {
		return changed[p.ImportPath] || slices.ContainsFunc(p.Deps, func(d string) bool { return changed[d] })
	}
	testTouched := func(p goPackage) bool {
		return touched(p) || slices.ContainsFunc(slices.Concat(p.TestImports, p.XTestImports), func(d string) bool {
			return touched(byPath[d])
		})
	}
	programs := slices.ContainsFunc([]string{"cmd/cloudflash-init", "cmd/burn"}, func(c string) bool {
		return touched(byPath["cloudflash/"+c])
	})

	for _, p := range packages {
		if testTouched(p) {
			r.unit = append(r.unit, p.Dir)
		}
		// What runs in VMs runs these programs, too.
		inVM := strings.HasPrefix(p.Dir, "./agent") || strings.HasPrefix(p.Dir, "./cmd/")
		if slices.Contains(kernel, p.Dir) && (testTouched(p) || programs && inVM) {
			r.kernel = append(r.kernel, p.Dir)
		}
	}
	agent := touched(byPath["cloudflash/cmd/cloudflash"]) || programs
	r.browser = r.browser || agent
	r.monitoring = r.monitoring || agent
	return r
}

// owner is the import path of the package that a file belongs to: that of the
// nearest directory above it that is a package.
func owner(packages []goPackage, file string) string {
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		for _, p := range packages {
			if p.Dir == "./"+dir {
				return p.ImportPath
			}
		}
		if dir == "." {
			return ""
		}
	}
}
