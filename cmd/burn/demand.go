package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

const maxCPUs = 4096

// demand is how many cores are wanted over time: one value for each step.
type demand struct {
	cores []float64
	step  time.Duration
	// carry keeps work that could not be done in time, as a server's queue does.
	// Without it, lost time is lost.
	carry bool
}

func constant(cores float64, d time.Duration) demand {
	return demand{cores: []float64{cores}, step: d}
}

// readTrace reads one number of cores per line; empty lines and # comments do not
// count.
func readTrace(r io.Reader, step time.Duration) (demand, error) {
	d := demand{step: step, carry: true}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= 0 && v <= maxCPUs) {
			return demand{}, fmt.Errorf("line %d: %q is not a number of cores from 0 to %d", n, text, maxCPUs)
		}
		d.cores = append(d.cores, v)
	}
	if err := lines.Err(); err != nil {
		return demand{}, err
	}
	if len(d.cores) == 0 {
		return demand{}, fmt.Errorf("no line with a number of cores")
	}
	if d.length() <= 0 || float64(len(d.cores))*step.Seconds() > maxSeconds {
		return demand{}, fmt.Errorf("%d lines of %v are too long", len(d.cores), step)
	}
	return d, nil
}

func (d demand) length() time.Duration { return time.Duration(len(d.cores)) * d.step }

// threads is how many must spin at the highest demand.
func (d demand) threads() int {
	most := 0.0
	for _, v := range d.cores {
		most = max(most, v)
	}
	return int(math.Ceil(most))
}

// until is the CPU time in seconds wanted from the start to t.
func (d demand) until(t time.Duration) float64 {
	t = max(0, min(t, d.length()))
	sum, whole := 0.0, int(t/d.step)
	for _, v := range d.cores[:whole] {
		sum += v
	}
	wanted := sum * d.step.Seconds()
	if whole < len(d.cores) {
		wanted += d.cores[whole] * (t % d.step).Seconds()
	}
	return wanted
}

// now is how many cores are wanted at t.
func (d demand) now(t time.Duration) float64 {
	return d.cores[min(max(int(t/d.step), 0), len(d.cores)-1)]
}
