package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/policy"
	"cloudflash/cmd/quantity"

	"github.com/goccy/go-yaml"
	flag "github.com/spf13/pflag"
)

// options is what `cloudflash serve` is told: defaults, then the file of
// --config, then CLOUDFLASH_* of the environment, then flags.
type options struct {
	Listen       string        `yaml:"listen"`
	Socket       string        `yaml:"socket"`
	StateDir     string        `yaml:"state-dir"`
	RunDir       string        `yaml:"run-dir"`
	CgroupParent string        `yaml:"cgroup-parent"`
	Init         string        `yaml:"init"`
	Burn         string        `yaml:"burn"`
	HostNames    string        `yaml:"host-names"`
	TLSCert      string        `yaml:"tls-cert"`
	TLSKey       string        `yaml:"tls-key"`
	CPUs         float64       `yaml:"overcommit-cpu"`
	Memory       float64       `yaml:"overcommit-memory"`
	Storage      float64       `yaml:"overcommit-storage"`
	OutputKeep   string        `yaml:"output-keep"`
	PageScan     string        `yaml:"page-scan"`
	IdleAfter    time.Duration `yaml:"idle-after"`
	IdleNotice   time.Duration `yaml:"idle-notice"`
	IdleMinVMs   int           `yaml:"idle-min-vms"`
	Autoscale    string        `yaml:"autoscale"`
	Backend      string        `yaml:"storage"`
	Bridge       string        `yaml:"network-bridge"`
	NetworkPool  string        `yaml:"network-pool"`
	NetworkULA   string        `yaml:"network-ula"`
	MetricsDir   string        `yaml:"metrics-dir"`
	LogFormat    string        `yaml:"log-format"`
	LogLevel     string        `yaml:"log-level"`
	HistoryEvery time.Duration `yaml:"history-every"`
	Erase        bool          `yaml:"-"`

	// Hidden: for tests.
	UpkeepEvery   time.Duration `yaml:"upkeep-every"`
	TrimAfter     time.Duration `yaml:"trim-after"`
	FindingsAfter time.Duration `yaml:"findings-after"`
}

func defaultOptions() options {
	d := agent.DefaultConfig()
	return options{
		Listen: "127.0.0.1:5000", Socket: "/run/cloudflash/api.sock", StateDir: d.StateDir, RunDir: d.RunDir,
		CgroupParent: "/sys/fs/cgroup/cloudflash", Init: beside("cloudflash-init"), Burn: beside("burn"),
		CPUs: d.Overcommit.CPUs, Memory: d.Overcommit.Memory, Storage: d.Overcommit.Storage,
		Backend: d.Storage, Bridge: d.Bridge, NetworkPool: d.NetworkPool, NetworkULA: d.NetworkULA,
		OutputKeep: "64MiB", PageScan: "1%", Autoscale: d.Autoscale, IdleAfter: d.Idle.After, IdleNotice: d.Idle.Notice, IdleMinVMs: d.Idle.MinVMs, LogFormat: "text", LogLevel: "info",
		HistoryEvery: d.HistoryEvery, UpkeepEvery: d.UpkeepEvery, TrimAfter: d.TrimAfter, FindingsAfter: d.FindingsAfter,
	}
}

// beside names a program that is installed next to this one.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// hidden are options that nobody needs but tests, which would wait too long without.
var hidden = []string{"upkeep-every", "trim-after", "findings-after"}

// flags declares every option; their names are also the keys of the file.
func (o *options) flags(out io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet("cloudflash serve", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprintf(out, "Run the agent (as root) until it is interrupted; VMs and cloudlets run on.\nEach option may also stand in the file of --config, or in the environment as CLOUDFLASH_LISTEN and so on.\n\nUsage:\n  cloudflash serve [flags]\n\nFlags:\n%s", fs.FlagUsages())
	}
	fs.StringVar(&o.Listen, "listen", o.Listen, "address of the dashboard and the API, HOST:PORT; empty for the Unix socket only")
	fs.StringVar(&o.Socket, "socket", o.Socket, "Unix socket of the API")
	fs.StringVar(&o.StateDir, "state-dir", o.StateDir, "database, data and output of VMs")
	fs.StringVar(&o.RunDir, "run-dir", o.RunDir, "sockets and journals; must be empty after a reboot")
	fs.StringVar(&o.CgroupParent, "cgroup-parent", o.CgroupParent, "cgroup that the agent owns")
	fs.StringVar(&o.Init, "init", o.Init, "the program cloudflash-init")
	fs.StringVar(&o.Burn, "burn", o.Burn, "the program burn")
	fs.StringVar(&o.HostNames, "host-names", o.HostNames, "names, comma-separated, that browsers may use for this host beside localhost")
	fs.StringVar(&o.TLSCert, "tls-cert", o.TLSCert, "certificate; with it --listen may go beyond loopback")
	fs.StringVar(&o.TLSKey, "tls-key", o.TLSKey, "its key")
	fs.Float64Var(&o.CPUs, "overcommit-cpu", o.CPUs, "how many times the host's cores may be promised")
	fs.Float64Var(&o.Memory, "overcommit-memory", o.Memory, "how many times the host's memory may be promised")
	fs.Float64Var(&o.Storage, "overcommit-storage", o.Storage, "how many times the host's storage may be promised")
	fs.StringVar(&o.Backend, "storage", o.Backend, "what holds VMs to their storage: auto, native (project quota of the state directory's file system), pool (one XFS file), none")
	fs.StringVar(&o.Bridge, "network-bridge", o.Bridge, "bridge of the VMs' network")
	fs.StringVar(&o.NetworkPool, "network-pool", o.NetworkPool, "IPv4 addresses of VMs; the first is the bridge's")
	fs.StringVar(&o.NetworkULA, "network-ula", o.NetworkULA, "and IPv6 addresses")
	fs.StringVar(&o.OutputKeep, "output-keep", o.OutputKeep, "how much of each output stream is kept, the newest")
	fs.StringVar(&o.MetricsDir, "metrics-dir", o.MetricsDir, "directory whose *.prom files are served with /metrics; empty for metrics.d in the state directory")
	fs.StringVar(&o.PageScan, "page-scan", o.PageScan, "share of one core that the scan of memory pages may take, such as 1%; 0% scans on request only, off never")
	fs.StringVar(&o.Autoscale, "autoscale", o.Autoscale, "how limits of VMs are scaled where no policy says otherwise: auto, recommend (decisions are shown and nothing is changed) or off")
	fs.DurationVar(&o.IdleAfter, "idle-after", o.IdleAfter, "how long a VM shows no sign of life until its deletion is announced; 0 never deletes idle VMs")
	fs.DurationVar(&o.IdleNotice, "idle-notice", o.IdleNotice, "and how long after that it is deleted, unless it gets busy or is kept")
	fs.IntVar(&o.IdleMinVMs, "idle-min-vms", o.IdleMinVMs, "so many running VMs stay, idle or not")
	fs.DurationVar(&o.HistoryEvery, "history-every", o.HistoryEvery,
		"how often the history of usage is saved: what a killed agent forgets at most")
	fs.DurationVar(&o.UpkeepEvery, "upkeep-every", o.UpkeepEvery, "how often limits are read back and the network is mended")
	fs.DurationVar(&o.TrimAfter, "trim-after", o.TrimAfter, "how long deletes are waited for before their blocks are given back")
	fs.DurationVar(&o.FindingsAfter, "findings-after", o.FindingsAfter, "how long a VM is watched until something is found about it")
	for _, name := range hidden {
		_ = fs.MarkHidden(name) // it is declared above
	}
	fs.StringVar(&o.LogFormat, "log-format", o.LogFormat, "text or json")
	fs.StringVar(&o.LogLevel, "log-level", o.LogLevel, "debug, info, warn or error")
	return fs
}

// parseOptions returns flag.ErrHelp when help was asked for.
func parseOptions(args []string, env func(string) string, out io.Writer) (options, error) {
	o := defaultOptions()
	if path := configPath(args, env); path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return o, err
		}
		if err := yaml.UnmarshalWithOptions(b, &o, yaml.Strict(), yaml.CustomUnmarshaler(readDuration)); err != nil {
			return o, fmt.Errorf("%s: %w", path, err)
		}
	}
	fs := o.flags(out)
	fs.String("config", "", "YAML file with these options, by the same names")
	var envErr error
	fs.VisitAll(func(f *flag.Flag) {
		name := "CLOUDFLASH_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v := env(name); v != "" && envErr == nil {
			if err := fs.Set(f.Name, v); err != nil {
				envErr = fmt.Errorf("%s=%q: %w", name, v, err)
			}
		}
	})
	if envErr != nil {
		return o, envErr
	}
	// On the command line alone: one that stays in a file would erase again, next year.
	fs.BoolVar(&o.Erase, "erase", false,
		"erase VMs that are here and not in the database, instead of refusing to start: where it is missing, empty, or another one")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return o, o.check()
}

// readDuration takes the text of a time in the file as a flag does: 0 needs no unit.
func readDuration(d *time.Duration, b []byte) error {
	var text string
	if err := yaml.Unmarshal(b, &text); err != nil {
		return err
	}
	v, err := time.ParseDuration(text)
	*d = v
	return err
}

// configPath looks for --config ahead of the other flags, which override its file.
func configPath(args []string, env func(string) string) string {
	for i, a := range args {
		name, value, joined := strings.Cut(a, "=")
		if name != "--config" {
			continue
		}
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		return value
	}
	return env("CLOUDFLASH_CONFIG")
}

func (o options) check() error {
	for name, v := range map[string]float64{"overcommit-cpu": o.CPUs, "overcommit-memory": o.Memory, "overcommit-storage": o.Storage} {
		if !(v > 0 && v <= 1000) {
			return fmt.Errorf("--%s must be more than 0 and at most 1000, not %s", name, strconv.FormatFloat(v, 'g', -1, 64))
		}
	}
	if o.MetricsDir != "" && (!filepath.IsAbs(o.MetricsDir) || filepath.Clean(o.MetricsDir) != o.MetricsDir) {
		return fmt.Errorf("--metrics-dir must be an absolute, clean path, not %q", o.MetricsDir)
	}
	for name, path := range map[string]string{"state-dir": o.StateDir, "run-dir": o.RunDir, "cgroup-parent": o.CgroupParent, "socket": o.Socket} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return fmt.Errorf("--%s must be an absolute, clean path, not %q", name, path)
		}
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil && o.Listen != "" {
		return fmt.Errorf("--listen must be HOST:PORT, not %q", o.Listen)
	}
	if !slices.Contains([]string{"auto", "native", "pool", agent.StorageNone}, o.Backend) {
		return fmt.Errorf("--storage must be auto, native, pool or none, not %q", o.Backend)
	}
	if !slices.Contains([]string{"off", "recommend", "auto"}, o.Autoscale) {
		return fmt.Errorf("--autoscale must be off, recommend or auto, not %q", o.Autoscale)
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return fmt.Errorf("--tls-cert and --tls-key go together")
	}
	if _, err := pageScan(o.PageScan); err != nil {
		return err
	}
	if err := o.checkIdle(); err != nil {
		return err
	}
	if err := o.checkTimes(); err != nil {
		return err
	}
	_, err := o.logger(io.Discard)
	return err
}

// checkTimes refuses what would keep the agent busy, or never happen.
func (o options) checkTimes() error {
	for _, x := range []struct {
		name           string
		v, least, most time.Duration
	}{
		{"history-every", o.HistoryEvery, time.Second, 24 * time.Hour},
		{"upkeep-every", o.UpkeepEvery, 100 * time.Millisecond, time.Hour},
		{"trim-after", o.TrimAfter, 100 * time.Millisecond, time.Hour},
		{"findings-after", o.FindingsAfter, time.Second, 5 * time.Minute},
	} {
		if x.v < x.least || x.v > x.most {
			return fmt.Errorf("--%s must be %s to %s, not %s", x.name, x.least, x.most, x.v)
		}
	}
	return nil
}

// checkIdle refuses times that nobody can mean: the agent looks once a second.
func (o options) checkIdle() error {
	const most = 365 * 24 * time.Hour
	if o.IdleAfter != 0 && (o.IdleAfter < time.Second || o.IdleAfter > most) {
		return fmt.Errorf("--idle-after must be 0 (never), or 1s to 8760h, not %s", o.IdleAfter)
	}
	if o.IdleNotice < 0 || o.IdleNotice > most {
		return fmt.Errorf("--idle-notice must be 0s to 8760h, not %s", o.IdleNotice)
	}
	if o.IdleMinVMs < 0 {
		return fmt.Errorf("--idle-min-vms must be 0 or more, not %d", o.IdleMinVMs)
	}
	return nil
}

// pageScan reads a share of one core. Off is negative.
func pageScan(s string) (float64, error) {
	if s == "off" {
		return -1, nil
	}
	digits, ok := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return 0, fmt.Errorf("--page-scan must be off, or 0%% to 100%% of one core, such as 1%%, not %q", s)
	}
	return v / 100, nil
}

func (o options) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
		return nil, fmt.Errorf("--log-level must be debug, info, warn or error, not %q", o.LogLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch o.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format must be text or json, not %q", o.LogFormat)
}

// config is the agent's part of the options.
func (o options) config(log *slog.Logger) (agent.Config, error) {
	keep, err := quantity.Bytes(o.OutputKeep)
	if err != nil || keep < 4096 {
		return agent.Config{}, fmt.Errorf("--output-keep must be at least 4KiB, such as 64MiB, not %q", o.OutputKeep)
	}
	for name, path := range map[string]string{"init": o.Init, "burn": o.Burn} {
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
			return agent.Config{}, fmt.Errorf("--%s: %s is no executable file", name, path)
		}
	}
	scan, err := pageScan(o.PageScan)
	if err != nil {
		return agent.Config{}, err
	}
	c := agent.DefaultConfig()
	c.PageScan, c.Autoscale = scan, o.Autoscale
	c.Idle = policy.Idle{After: o.IdleAfter, Notice: o.IdleNotice, MinVMs: o.IdleMinVMs}
	c.StateDir, c.RunDir, c.CgroupParent = o.StateDir, o.RunDir, o.CgroupParent
	c.InitPath, c.Binaries = o.Init, []string{o.Burn}
	c.Overcommit = agent.Overcommit{CPUs: o.CPUs, Memory: o.Memory, Storage: o.Storage}
	c.Storage, c.Bridge, c.NetworkPool, c.NetworkULA = o.Backend, o.Bridge, o.NetworkPool, o.NetworkULA
	c.HistoryEvery, c.UpkeepEvery = o.HistoryEvery, o.UpkeepEvery
	c.TrimAfter, c.FindingsAfter = o.TrimAfter, o.FindingsAfter
	c.OutputKeep, c.Version, c.Log = keep, version, log
	c.Erase = o.Erase
	return c, nil
}
