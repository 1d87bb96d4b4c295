package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/host"
	"cloudflash/api"
	"cloudflash/api/access"
	"cloudflash/api/metrics"
	"cloudflash/api/stream"
	"cloudflash/cmd/cloudflash/cli"
	"cloudflash/web"

	flag "github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
)

// serve is `cloudflash serve`: it runs the agent until ctx ends. VMs and their
// cloudlets live on.
func serve(ctx context.Context, args []string, env func(string) string, out io.Writer) error {
	o, err := parseOptions(args, env, out)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return cli.Usage(err)
	}
	log, err := o.logger(out)
	if err != nil {
		return err
	}
	cfg, err := o.config(log)
	if err != nil {
		return cli.Usage(err)
	}
	if os.Geteuid() != 0 {
		return errors.New("serve needs root: it makes cgroups, namespaces and mounts")
	}
	if err := host.RaiseLimits(); err != nil {
		log.Warn("raise limits that VMs have in common", "err", err)
	}
	if err := host.DieLast(); err != nil {
		log.Warn("ask the OOM killer to spare the agent", "err", err)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.Enter(); err != nil {
		return err
	}
	return o.run(ctx, a, log)
}

// gcPercent is how much garbage there may be beside what is in use, half of Go's default:
// the agent keeps much for long and makes little garbage.
const gcPercent = 50

// run binds first, so that a busy address fails before anything is touched.
func (o options) run(ctx context.Context, a *agent.Agent, log *slog.Logger) error {
	config, err := o.tlsConfig()
	if err != nil {
		return err
	}
	socket, err := access.ListenUnix(o.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()
	listeners := []net.Listener{socket}
	if o.Listen != "" {
		l, err := access.ListenTCP(o.Listen, config)
		if err != nil {
			return err
		}
		defer l.Close()
		listeners = append(listeners, l)
	}
	hub := stream.New(a, log)
	numbers, err := o.metrics(a, log)
	if err != nil {
		return err
	}
	srv := o.server(a, hub, numbers, log, config != nil)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.Run(ctx) })
	g.Go(func() error { return hub.Run(ctx) })
	for _, l := range listeners {
		log.Info("listening", "address", l.Addr().String())
		g.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			return srv.Close() // followers of streams do not hang up by themselves
		}
		return nil
	})
	return g.Wait()
}

// metrics puts /metrics together. A collector of one's own is registered here.
func (o options) metrics(a *agent.Agent, log *slog.Logger) (*metrics.Metrics, error) {
	m := metrics.New(a, version, log)
	dir := o.MetricsDir
	if dir == "" {
		dir = filepath.Join(o.StateDir, "metrics.d")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return m, m.Textfile(dir)
}

func (o options) server(a *agent.Agent, hub *stream.Hub, m *metrics.Metrics, log *slog.Logger, secure bool) *http.Server {
	var hosts []string
	for _, h := range strings.Split(o.HostNames, ",") {
		if h = strings.ToLower(strings.TrimSpace(h)); h != "" {
			hosts = append(hosts, h)
		}
	}
	guard := access.New(a.Tokens, hosts, secure)
	parts := api.Parts{
		VMs:       a,
		Cloudlets: a,
		Host:      a,
		History:   a,
		Memory:    a.Pages,
		Advice:    a,
		Scaling:   a,
		Tokens:    a.Tokens,
	}
	handler := api.New(parts, api.Options{
		Log: log, Version: version, Login: guard, Web: web.Handler(),
		Stream: http.HandlerFunc(hub.WebSocket), SSE: http.HandlerFunc(hub.Events),
		Metrics: m.Handler(), Observe: m.Observe, Guard: guard.Wrap,
	})
	return &http.Server{
		Handler: handler, ConnContext: access.ConnContext,
		// A request that is not whole by ReadTimeout is cut; net/http lifts that from those that are.
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// tlsConfig reads the certificate anew for each connection that comes after its
// file has changed, so that a renewed one needs no restart.
func (o options) tlsConfig() (*tls.Config, error) {
	if o.TLSCert == "" {
		return nil, nil
	}
	if _, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey); err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey)
		return &c, err
	}}, nil
}
