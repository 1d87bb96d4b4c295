package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Trace is the demand of one VM: a value holds for one step.
type Trace struct {
	Name   string
	Step   time.Duration
	Cap    float64 // the size it starts with, and the most it may have
	Demand []float64
}

// Hours it lasts.
func (t Trace) Hours() float64 { return t.Step.Hours() * float64(len(t.Demand)) }

// Part is the share of a trace between two points, 0 is its begin and 1 its end.
func (t Trace) Part(from, to float64, name string) Trace {
	n := float64(len(t.Demand))
	t.Name, t.Demand = name, t.Demand[int(from*n):int(to*n)]
	return t
}

// mostLines is more than any trace here has; a file with more is not one.
const mostLines = 10_000_000

// ParsePerf reads the CSV of VASIM: TIMESTAMP,CPU_USAGE_ACTUAL, one line a minute,
// in cores.
func ParsePerf(r io.Reader) ([]float64, error) {
	var all []float64
	err := lines(r, func(n int, line string) error {
		if n == 1 || line == "" {
			return nil
		}
		_, field, ok := strings.Cut(line, ",")
		if !ok {
			return errors.New("no second field")
		}
		v, err := amount(field)
		all = append(all, v)
		return err
	})
	return all, err
}

// ParsePlanetLab reads one VM a line: its name, then its use of a core in percent,
// every five minutes.
func ParsePlanetLab(r io.Reader) ([]Trace, error) {
	var all []Trace
	err := lines(r, func(_ int, line string) error {
		if line == "" {
			return nil
		}
		fields := strings.Split(line, ",")
		t := Trace{Name: fields[0], Step: 5 * time.Minute, Cap: 1, Demand: make([]float64, 0, len(fields)-1)}
		for _, f := range fields[1:] {
			v, err := amount(f)
			if err != nil {
				return err
			}
			t.Demand = append(t.Demand, v/100)
		}
		all = append(all, t)
		return nil
	})
	return all, err
}

// ParseBitbrains reads GWA-T-12: fields are separated by ";\t", the fourth is CPU
// use in MHz, the third what is provisioned, the second the cores; the seventh is
// memory in use in KB, the sixth what is provisioned. Every five minutes.
func ParseBitbrains(r io.Reader) (cpu, memory Trace, err error) {
	cpu = Trace{Name: "bitbrains cpu", Step: 5 * time.Minute}
	memory = Trace{Name: "bitbrains memory", Step: 5 * time.Minute}
	err = lines(r, func(n int, line string) error {
		if n == 1 || line == "" {
			return nil
		}
		fields := strings.Split(line, ";")
		if len(fields) < 7 {
			return fmt.Errorf("%d fields, not 7", len(fields))
		}
		var v [7]float64
		for i := 1; i < 7; i++ {
			if v[i], err = amount(fields[i]); err != nil {
				return err
			}
		}
		if v[2] <= 0 {
			return errors.New("no CPU capacity")
		}
		cpu.Demand = append(cpu.Demand, v[3]/v[2]*v[1])
		memory.Demand = append(memory.Demand, v[6]*1024)
		cpu.Cap, memory.Cap = max(cpu.Cap, v[1]), max(memory.Cap, v[5]*1024)
		return nil
	})
	return cpu, memory, err
}

func amount(s string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err == nil && (math.IsNaN(v) || math.IsInf(v, 0) || v < 0) {
		err = fmt.Errorf("%q is no amount", s)
	}
	return v, err
}

func lines(r io.Reader, each func(n int, line string) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), 1<<20)
	n := 0
	for in.Scan() {
		n++
		if n > mostLines {
			return fmt.Errorf("more than %d lines", mostLines)
		}
		if err := each(n, strings.TrimSpace(in.Text())); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return in.Err()
}

// Files of the folder of traces.
const (
	perfFile      = "alibaba-c_29247-cpu.csv.gz"
	planetLabFile = "planetlab-20110303.csv.gz"
	bitbrainsFile = "bitbrains-gwa-t-12-vm.csv.gz"
)

// Recorded is what the folder of traces has.
type Recorded struct {
	Alibaba      Trace
	PlanetLab    []Trace
	Bitbrains    Trace
	BitbrainsRAM Trace
}

// Load reads the folder of traces; the error satisfies fs.ErrNotExist when it, or a
// file of it, is not there.
func Load(dir string) (rec Recorded, err error) {
	read := func(name string, parse func(io.Reader) error) {
		if err != nil {
			return
		}
		var b []byte
		if b, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return
		}
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			err = parse(z)
		}
		if err != nil {
			err = fmt.Errorf("read %s: %w", name, err)
		}
	}
	read(perfFile, func(r io.Reader) (err error) {
		rec.Alibaba = Trace{Name: "Alibaba c_29247", Step: time.Minute, Cap: 25}
		rec.Alibaba.Demand, err = ParsePerf(r)
		return err
	})
	read(planetLabFile, func(r io.Reader) (err error) {
		rec.PlanetLab, err = ParsePlanetLab(r)
		return err
	})
	read(bitbrainsFile, func(r io.Reader) (err error) {
		rec.Bitbrains, rec.BitbrainsRAM, err = ParseBitbrains(r)
		return err
	})
	return rec, err
}
