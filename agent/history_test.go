package agent

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/meter"
)

func TestHistoryFieldsAreFew(t *testing.T) {
	known := meter.VMFields()
	made := func(n int) []string {
		all := make([]string, n)
		for i := range all {
			all[i] = "x" + strconv.Itoa(i)
		}
		return all
	}
	for name, test := range map[string]struct {
		fields []string
		faults int
		says   string
	}{
		"none":             {nil, 0, ""},
		"all":              {known, 0, ""},
		"one unknown":      {[]string{"cpus", "cpu"}, 1, `"cpu" is not one of cpus`},
		"some unknown":     {made(len(known)), mostUnknown, `"x2" is not one of`},
		"all and one":      {append(made(1), known...), 1, "there are " + strconv.Itoa(len(known)) + " series"},
		"60,000 unknown":   {made(60000), 1, "has 60000 names"},
		"one that is long": {[]string{strings.Repeat("y", 1<<20)}, 1, "is not one of"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkHistory(time.Hour, test.fields, known)
			if test.faults == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *fault.Error
			if !errors.As(err, &e) || len(e.Fields) != test.faults || len(e.Detail) > 4096 || !strings.Contains(e.Detail, test.says) {
				t.Fatalf("%.200v", err)
			}
		})
	}
}
