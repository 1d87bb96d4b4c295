package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVMListInEveryFormat(t *testing.T) {
	r := withVMs(t)
	for format, want := range map[string]string{
		"table": `
NAME  STATE    CPU       MEMORY         PIDS   CLOUDLETS  AGE
db    running  0.50/2    100 MiB/1 GiB  3/256  1          2h10m
web   failed   0.00/max  0 B/max        0/max  0          58s
`,
		"name": "\ndb\nweb\n",
	} {
		t.Run(format, func(t *testing.T) {
			got := r.run("vm", "list", "-o", format)
			if diff := cmp.Diff(result{Out: strings.TrimPrefix(want, "\n")}, got); diff != "" {
				t.Errorf("vm list -o %s (-want +got):\n%s", format, diff)
			}
		})
	}
}
