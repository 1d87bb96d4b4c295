package meter

import "math"

// code is a value of the history in 16 bits: a number from 2^-16 to 2^48 with a
// six-bit exponent and ten bits after the point, so at most 1/2048 off. What is
// below, and what is negative, counts as zero. Codes are in the order of their
// values.
type code uint16

const (
	gap      code = math.MaxUint16
	largest  code = gap - 1
	lowest        = -16 // exponent of the smallest number
	halfStep      = 1 << 41
)

// encode takes NaN for a gap.
func encode(v float64) code {
	if math.IsNaN(v) {
		return gap
	}
	if v < 1.0/(1<<16) {
		return 0
	}
	bits := math.Float64bits(v) + halfStep
	exp := int(bits>>52) - 1023 - lowest
	if exp > 63 {
		return largest
	}
	return min(max(code(exp<<10|int(bits>>42&1023)), 1), largest)
}

// binary is the number of a code, or NaN. Whole bytes of a size such as 1.5 GiB
// are exact.
func (c code) binary() float64 {
	switch c {
	case gap:
		return math.NaN()
	case 0:
		return 0
	}
	return math.Ldexp(1+float64(c&1023)/1024, int(c>>10)+lowest)
}

// round rounds to a multiple of a power of ten, which is exact when it is whole.
func round(v float64, power int) float64 {
	unit := math.Pow10(max(power, -power))
	if power < 0 {
		return math.Round(v*unit) / unit
	}
	return math.Round(v/unit) * unit
}

// decimal is the roundest number that has this code: 100 Mbit/s comes out as it
// went in, and 0.3 does not turn into 0.2999.
func (c code) decimal() float64 {
	v := c.binary()
	if c == 0 || c == gap {
		return v
	}
	// Ten bits are three digits and a bit: with four, the nearest always has the code.
	for digits := range 5 {
		if r := round(v, int(math.Floor(math.Log10(v)))-digits); encode(r) == c {
			return r
		}
	}
	return v
}
