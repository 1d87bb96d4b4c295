package fault

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestFieldsAreFew(t *testing.T) {
	var l List
	for range 1000 {
		l.Add("/x", nil, nil, "is wrong")
	}
	var e *Error
	if err := l.Err("wrong"); !errors.As(err, &e) || len(e.Fields) != mostFields {
		t.Errorf("%.200v", err)
	}
}

func TestWithin(t *testing.T) {
	for _, v := range []float64{0.1, 1, 32} {
		var l List
		Within(&l, "/cpus", v, 0.1, 32)
		if !l.Empty() || l.Err("out_of_range") != nil {
			t.Errorf("%v is refused", v)
		}
	}
	for _, v := range []float64{0.09, 33, math.NaN(), math.Inf(1)} {
		var l List
		Within(&l, "/cpus", v, 0.1, 32)
		err := l.Err("out_of_range")
		if !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), "cpus must be 0.1 to 32, not ") {
			t.Errorf("%v: %v", v, err)
		}
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb":                   `"a\nb"`,
		strings.Repeat("x", 80):  `"` + strings.Repeat("x", 80) + `"`,
		strings.Repeat("x", 100): `"` + strings.Repeat("x", 80) + `"… (100 bytes)`,
	} {
		if got := Quote(in); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
