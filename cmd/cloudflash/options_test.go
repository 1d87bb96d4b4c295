package main

import (
	"errors"

	flag "github.com/spf13/pflag"

	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"

	"github.com/google/go-cmp/cmp"
)

func noEnv(string) string { return "" }

// environment is an environment of these variables alone.
func environment(m map[string]string) func(string) string {
	return func(name string) string { return m[name] }
}

// file writes a file of a test and returns its path.
func file(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsOfServe(t *testing.T) {
	o, err := parseOptions(nil, noEnv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want := options{Listen: "127.0.0.1:5000", Socket: "/run/cloudflash/api.sock", StateDir: "/var/lib/cloudflash", RunDir: "/run/cloudflash",
		CgroupParent: "/sys/fs/cgroup/cloudflash", Init: filepath.Join(filepath.Dir(self), "cloudflash-init"), Burn: filepath.Join(filepath.Dir(self), "burn"),
		CPUs: agent.DefaultConfig().Overcommit.CPUs, Memory: 1, Storage: agent.DefaultConfig().Overcommit.Storage, OutputKeep: "64MiB", PageScan: "1%", Autoscale: "auto",
		IdleAfter: time.Minute, IdleNotice: 30 * time.Second,
		Backend: "auto", Bridge: "cf0", NetworkPool: "10.88.0.0/16", NetworkULA: "fd0c:f1a5:c10d::/64", LogFormat: "text", LogLevel: "info",
		HistoryEvery: 45 * time.Second, UpkeepEvery: 5 * time.Second, TrimAfter: 5 * time.Second, FindingsAfter: time.Minute}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEachOptionFromEachPlace gives every option in the file, the environment
// and as a flag; the later place wins.
func TestEachOptionFromEachPlace(t *testing.T) {
	texts := map[string][3]string{ // in the file, the environment, the flag
		"listen": {"127.0.0.1:1", "127.0.0.1:2", ""}, "socket": {"/a", "/b", "/c"}, "state-dir": {"/a", "/b", "/c"}, "run-dir": {"/a", "/b", "/c"},
		"cgroup-parent": {"/a", "/b", "/c"}, "init": {"/a", "/b", "/c"}, "burn": {"/a", "/b", "/c"}, "metrics-dir": {"/a", "/b", "/c"}, "host-names": {"a,b", "b", "c"},
		"overcommit-cpu": {"1.5", "2", "3"}, "overcommit-memory": {"1.5", "2", "3"}, "overcommit-storage": {"1.5", "2", "3"},
		"output-keep": {"1MiB", "2MiB", "3MiB"}, "page-scan": {"off", "0%", "2.5%"}, "idle-after": {"1m0s", "0s", "5s"}, "idle-notice": {"2s", "0s", "1h0m0s"}, "idle-min-vms": {"1", "2", "3"}, "autoscale": {"off", "recommend", "auto"}, "log-format": {"json", "text", "json"}, "storage": {"native", "pool", "none"}, "network-bridge": {"a", "b", "c"}, "network-pool": {"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"},
		"history-every": {"1s", "2s", "24h0m0s"}, "upkeep-every": {"100ms", "1s", "1h0m0s"}, "trim-after": {"100ms", "1s", "1h0m0s"},
		"findings-after": {"1s", "2s", "5m0s"},
		"network-ula":    {"fd00:1::/64", "fd00:2::/64", "fd00:3::/64"}, "log-level": {"debug", "warn", "error"},
	}
	var d options
	d.flags(io.Discard).VisitAll(func(f *flag.Flag) {
		text, ok := texts[f.Name]
		if strings.HasPrefix(f.Name, "tls-") {
			return // they go together: below
		}
		if !ok {
			t.Errorf("--%s is not tested", f.Name)
		}
		config := file(t, "c.yaml", f.Name+": "+text[0]+"\n", 0o600)
		env := map[string]string{"CLOUDFLASH_CONFIG": config}
		name := "CLOUDFLASH_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		for i, args := range [][]string{nil, nil, {"--" + f.Name, text[2]}} {
			if i == 1 {
				env[name] = text[1]
			}
			o, err := parseOptions(args, environment(env), io.Discard)
			if err != nil {
				t.Errorf("--%s: %v", f.Name, err)
				continue
			}
			if got := o.flags(io.Discard).Lookup(f.Name).Value.String(); got != text[i] {
				t.Errorf("--%s is %q from place %d, want %q", f.Name, got, i, text[i])
			}
		}
	})
	if o, err := parseOptions([]string{"--tls-cert", "/c"}, environment(map[string]string{"CLOUDFLASH_TLS_KEY": "/k"}), io.Discard); err != nil || o.TLSCert != "/c" || o.TLSKey != "/k" {
		t.Errorf("TLS: %q, %q, %v", o.TLSCert, o.TLSKey, err)
	}
}

// What erases data is asked for each time.
func TestEraseIsOnlyAFlag(t *testing.T) {
	env := map[string]string{"CLOUDFLASH_ERASE": "true"}
	if o, err := parseOptions(nil, environment(env), io.Discard); err != nil || o.Erase {
		t.Errorf("in the environment: %v %v", o.Erase, err)
	}
	if _, err := parseOptions([]string{"--config", file(t, "c.yaml", "erase: true\n", 0o600)}, noEnv, io.Discard); err == nil {
		t.Error("it is taken from a file")
	}
	if o, err := parseOptions([]string{"--erase"}, noEnv, io.Discard); err != nil || !o.Erase {
		t.Errorf("as a flag: %v %v", o.Erase, err)
	}
}

func TestConfigFile(t *testing.T) {
	config := file(t, "c.yaml", "listen: 127.0.0.1:7\nlog-level: warn\n", 0o600)
	for name, args := range map[string][]string{"two words": {"--config", config}, "one word": {"--config=" + config}, "behind others": {"--log-format", "json", "--config", config}} {
		o, err := parseOptions(args, noEnv, io.Discard)
		if err != nil || o.Listen != "127.0.0.1:7" || o.LogLevel != "warn" {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
	if o, err := parseOptions([]string{"--config", file(t, "c.yaml", "idle-after: 0\nidle-notice: 1m\n", 0o600)}, noEnv, io.Discard); err != nil || o.IdleAfter != 0 || o.IdleNotice != time.Minute {
		t.Errorf("times: %v, %v, %v", o.IdleAfter, o.IdleNotice, err)
	}
	o, err := parseOptions([]string{"--config", config}, environment(map[string]string{"CLOUDFLASH_CONFIG": "/nix"}), io.Discard)
	if err != nil || o.Listen != "127.0.0.1:7" {
		t.Errorf("the flag does not go before the environment: %+v, %v", o, err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":  {"listne: x\n", `unknown field "listne"`},
		"wrong type":   {"overcommit-cpu: lots\n", "overcommit-cpu"},
		"no YAML":      {"{", "c.yaml"},
		"out of range": {"overcommit-memory: 0\n", "--overcommit-memory must be more than 0"},
		"no number":    {"overcommit-memory: .nan\n", "--overcommit-memory must be more than 0 and at most 1000, not NaN"},
	} {
		if _, err := parseOptions([]string{"--config", file(t, "c.yaml", c.text, 0o600)}, noEnv, io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := parseOptions([]string{"--config", "/nix"}, noEnv, io.Discard); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nix") {
		t.Errorf("no file: %v", err)
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		args string
		env  map[string]string
		want string
	}{
		"unknown":             {"--nix", nil, "unknown flag: --nix"},
		"without a value":     {"--listen", nil, "flag needs an argument: --listen"},
		"no number":           {"--overcommit-cpu many", nil, `invalid argument "many" for "--overcommit-cpu" flag: strconv.ParseFloat: parsing "many": invalid syntax`},
		"page scan":           {"--page-scan 2", nil, `--page-scan must be off, or 0% to 100% of one core, such as 1%, not "2"`},
		"page scan, much":     {"--page-scan 101%", nil, `--page-scan must be off, or 0% to 100% of one core, such as 1%, not "101%"`},
		"autoscale":           {"--autoscale on", nil, `--autoscale must be off, recommend or auto, not "on"`},
		"idle, negative":      {"--idle-after -1s", nil, "--idle-after must be 0 (never), or 1s to 8760h, not -1s"},
		"idle, too short":     {"--idle-after 10ms", nil, "--idle-after must be 0 (never), or 1s to 8760h, not 10ms"},
		"idle, no unit":       {"--idle-after 60", nil, `invalid argument "60" for "--idle-after" flag: time: missing unit in duration "60"`},
		"notice":              {"--idle-notice 9000h", nil, "--idle-notice must be 0s to 8760h, not 9000h0m0s"},
		"history":             {"--history-every 0", nil, "--history-every must be 1s to 24h0m0s, not 0s"},
		"upkeep":              {"--upkeep-every 2h", nil, "--upkeep-every must be 100ms to 1h0m0s, not 2h0m0s"},
		"trim":                {"--trim-after 0s", nil, "--trim-after must be 100ms to 1h0m0s, not 0s"},
		"findings":            {"--findings-after 6m", nil, "--findings-after must be 1s to 5m0s, not 6m0s"},
		"pool minimum":        {"--idle-min-vms -1", nil, "--idle-min-vms must be 0 or more, not -1"},
		"zero":                {"--overcommit-cpu 0", nil, "--overcommit-cpu must be more than 0 and at most 1000, not 0"},
		"negative":            {"--overcommit-memory -1", nil, "--overcommit-memory must be more than 0 and at most 1000, not -1"},
		"NaN":                 {"--overcommit-storage NaN", nil, "--overcommit-storage must be more than 0 and at most 1000, not NaN"},
		"Inf":                 {"--overcommit-storage Inf", nil, "--overcommit-storage must be more than 0 and at most 1000, not +Inf"},
		"relative path":       {"--state-dir lib", nil, `--state-dir must be an absolute, clean path, not "lib"`},
		"unclean path":        {"--run-dir /run/../etc", nil, `--run-dir must be an absolute, clean path, not "/run/../etc"`},
		"relative directory":  {"--metrics-dir m", nil, `--metrics-dir must be an absolute, clean path, not "m"`},
		"no path":             {"--socket=", nil, `--socket must be an absolute, clean path, not ""`},
		"control character":   {"--cgroup-parent \x1b[31m", nil, `--cgroup-parent must be an absolute, clean path, not "\x1b[31m"`},
		"certificate alone":   {"--tls-cert /c", nil, "--tls-cert and --tls-key go together"},
		"level":               {"--log-level loud", nil, `--log-level must be debug, info, warn or error, not "loud"`},
		"format":              {"--log-format xml", nil, `--log-format must be text or json, not "xml"`},
		"argument":            {"now", nil, `unexpected argument "now"`},
		"variable, type":      {"", map[string]string{"CLOUDFLASH_OVERCOMMIT_CPU": "many"}, `CLOUDFLASH_OVERCOMMIT_CPU="many": invalid argument "many" for "--overcommit-cpu" flag: strconv.ParseFloat: parsing "many": invalid syntax`},
		"variable, range":     {"", map[string]string{"CLOUDFLASH_OVERCOMMIT_CPU": "-1"}, "--overcommit-cpu must be more than 0 and at most 1000, not -1"},
		"variable, log level": {"", map[string]string{"CLOUDFLASH_LOG_LEVEL": "loud"}, `--log-level must be debug, info, warn or error, not "loud"`},
	} {
		_, err := parseOptions(strings.Fields(c.args), environment(c.env), io.Discard)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestConfigOfTheAgent(t *testing.T) {
	program := file(t, "program", "", 0o755)
	o, err := parseOptions([]string{"--init", program, "--burn", program, "--output-keep", "1MiB", "--overcommit-cpu", "2.5", "--autoscale", "recommend", "--state-dir", "/s", "--run-dir", "/r", "--cgroup-parent", "/c"}, noEnv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	c, err := o.config(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.OutputKeep != 1<<20 || c.Overcommit.CPUs != 2.5 || c.Autoscale != "recommend" || c.StateDir != "/s" || c.RunDir != "/r" || c.CgroupParent != "/c" || c.InitPath != program || len(c.Binaries) != 1 || c.Binaries[0] != program {
		t.Errorf("%+v", c)
	}
	for name, bad := range map[string]struct {
		set  func(*options)
		want string
	}{
		"keep nothing":   {func(o *options) { o.OutputKeep = "0" }, `--output-keep must be at least 4KiB, such as 64MiB, not "0"`},
		"keep what":      {func(o *options) { o.OutputKeep = "lots" }, `--output-keep must be at least 4KiB, such as 64MiB, not "lots"`},
		"keep -1":        {func(o *options) { o.OutputKeep = "-1" }, `--output-keep must be at least 4KiB, such as 64MiB, not "-1"`},
		"no init":        {func(o *options) { o.Init = "/nix" }, "--init: /nix is no executable file"},
		"a directory":    {func(o *options) { o.Burn = "/tmp" }, "--burn: /tmp is no executable file"},
		"not executable": {func(o *options) { o.Burn = "/etc/passwd" }, "--burn: /etc/passwd is no executable file"},
	} {
		broken := o
		bad.set(&broken)
		if _, err := broken.config(nil); err == nil || err.Error() != bad.want {
			t.Errorf("%s: %v, want %s", name, err, bad.want)
		}
	}
}

// TestServeHelp runs without root, an agent or a cgroup.
func TestServeHelp(t *testing.T) {
	for _, help := range []string{"--help", "-h"} {
		var b strings.Builder
		if err := serve(t.Context(), []string{help}, noEnv, &b); err != nil {
			t.Fatal(err)
		}
		var d options
		d.flags(io.Discard).VisitAll(func(f *flag.Flag) {
			if f.Hidden {
				if strings.Contains(b.String(), "-"+f.Name) {
					t.Errorf("%s names --%s, which is hidden", help, f.Name)
				}
				return
			}
			if !strings.Contains(b.String(), "-"+f.Name) || !strings.Contains(b.String(), f.Usage) || f.Usage == "" {
				t.Errorf("%s does not explain --%s", help, f.Name)
			}
		})
		if !strings.Contains(b.String(), "-config") {
			t.Errorf("%s does not explain --config", help)
		}
	}
}

func TestLoggers(t *testing.T) {
	for format, want := range map[string]string{"text": "level=WARN msg=seen", "json": `"level":"WARN","msg":"seen"`} {
		var b strings.Builder
		log, err := options{LogFormat: format, LogLevel: "warn"}.logger(&b)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("unseen")
		log.Warn("seen")
		if !strings.Contains(b.String(), want) || strings.Contains(b.String(), "unseen") {
			t.Errorf("%s: %s", format, b.String())
		}
	}
}

func FuzzConfigPath(f *testing.F) {
	f.Add("--config", "x")
	f.Add("--config=x", "")
	f.Add("-config", "-config")
	f.Add("----config==", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		path := configPath([]string{a, b}, noEnv)
		if path != "" && !strings.Contains(a+b, path) {
			t.Errorf("configPath(%q, %q) = %q", a, b, path)
		}
	})
}
