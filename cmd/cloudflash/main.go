// Command cloudflash is the agent (serve) and its command line in one binary.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"cloudflash/cmd/cloudflash/cli"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Main(ctx, cli.Process{
		Args: os.Args[1:], Env: os.Getenv, In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Version: version, Serve: serve,
	})
}
