package guest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseJournal(t *testing.T) {
	whole := "ab 0 0 1 2 3\ncd 3 9 10 20 30 40\n"
	want := []Exit{
		{ID: "ab", StartedAt: time.Unix(0, 1), FinishedAt: time.Unix(0, 2), CPUTime: 3},
		{ID: "cd", Code: 3, Signal: 9, StartedAt: time.Unix(0, 10), FinishedAt: time.Unix(0, 20), CPUTime: 30, FinishedBoot: 40},
	}
	tests := map[string]struct {
		text string
		want []Exit
		bad  bool
	}{
		"nothing":                       {"", nil, false},
		"two exits":                     {whole, want, false},
		"a line cut off by a power cut": {whole + "ef 0 0 1", want, false},
		"too few fields":                {"ab 0 0 1 2\n", nil, true},
		"no number":                     {"ab x 0 1 2 3\n", nil, true},
		"good lines around a bad one":   {whole[:13] + "\x00\x00\x00\n" + whole[13:], want, true},
		"a line cut off by a full disk": {"ef 3 9 10 20 30 4?\n" + whole, want, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseJournal([]byte(tt.text))
			if (err != nil) != tt.bad {
				t.Errorf("err = %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if got, err := ReadJournal(t.TempDir()); got != nil || err != nil {
		t.Errorf("no journal: %v %v", got, err)
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add([]byte("ab 0 0 1 2 3\n"))
	f.Add([]byte("ab -1 99999999999 1 2 3\nx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		exits, _ := parseJournal(b)
		for _, e := range exits {
			if e.ID == "" {
				t.Error("an exit without id")
			}
		}
	})
}

func TestParseNSPID(t *testing.T) {
	for text, want := range map[string]int{
		"Name:\tsh\nNSpid:\t4021\t7\nFoo:\n": 7,
		"NSpid:\t12\n":                       12,
		"NSpid:\n":                           0,
		"NSpid:\t1\tx\n":                     0,
		"Name:\tNSpid: 9\n":                  0,
		"":                                   0,
	} {
		if got := parseNSPID([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func FuzzParseNSPID(f *testing.F) {
	f.Add([]byte("NSpid:\t4021\t7\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseNSPID(b) })
}
