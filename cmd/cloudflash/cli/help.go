package cli

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// helpCommand is cobra's, but fails for what does not exist.
func helpCommand() *cobra.Command {
	return &cobra.Command{Use: "help [COMMAND]...", Short: "Explain a command", Example: "  cloudflash help vm create",
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usage("unknown command %q; cloudflash --help lists them", args[len(args)-max(len(rest), 1)])
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		}}
}

// completionCommand prints scripts for shells, which complete the names of VMs
// and cloudlets too.
func (a *app) completionCommand() *cobra.Command {
	shell := func(name, load string, generate func(root *cobra.Command, w io.Writer) error) *cobra.Command {
		return &cobra.Command{Use: name, Short: "Print the completion script for " + name, Example: "  " + load, Args: exactly(0, "no arguments"),
			RunE: func(c *cobra.Command, _ []string) error { return generate(c.Root(), a.Out) }}
	}
	return group("completion", "Print completion scripts for shells",
		shell("bash", "source <(cloudflash completion bash)", func(r *cobra.Command, w io.Writer) error { return r.GenBashCompletionV2(w, true) }),
		shell("zsh", "cloudflash completion zsh > \"${fpath[1]}/_cloudflash\"", (*cobra.Command).GenZshCompletion),
		shell("fish", "cloudflash completion fish | source", func(r *cobra.Command, w io.Writer) error { return r.GenFishCompletion(w, true) }))
}

// completionTime is how long a shell is kept waiting for names.
const completionTime = 200 * time.Millisecond

// complete offers the names of what there is. An agent that is slow or gone
// offers none.
func complete[T any](a *app, c *cobra.Command, path string, name func(T) string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completionTime)
	defer cancel()
	all, err := list[T](ctx, a.client(), path, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, len(all))
	for i, v := range all {
		names[i] = clean(name(v))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
