package replay

import (
	"fmt"
	"testing"
	"time"
)

func TestQuick(t *testing.T) {
	rec, err := Load("/work/shared/traces")
	if err != nil {
		t.Fatal(err)
	}
	look := time.Duration(0)
	show := func(name string, all []Trace) {
		fmt.Println("==", name)
		for _, p := range Policies() {
			r := RunAll(all, look, p)
			fmt.Printf("%-28s slack %5.1f short %7.3f thr %6.2f rs/h %6.2f rev/h %5.2f\n", p.Name, 100*r.Slack, 100*r.Shortfall, 100*r.Throttled, r.PerHour, r.Reversals)
		}
	}
	show("alibaba", []Trace{rec.Alibaba})
	show("planetlab", rec.PlanetLab)
	show("bitbrains", []Trace{rec.Bitbrains})
	look = time.Second
	show("live alibaba", []Trace{rec.Alibaba.Part(0, 0.25, "x")})
	show("live planet", rec.PlanetLab[:50])
	show("live bitbrains", []Trace{rec.Bitbrains.Part(0, 0.1, "x")})
	look = 0
	for _, s := range Synthetic(1) {
		show(s.Name, []Trace{s})
	}
}

func TestQuickMemory(t *testing.T) {
	rec, err := Load("/work/shared/traces")
	if err != nil {
		t.Fatal(err)
	}
	for _, look := range []time.Duration{0, time.Second} {
		tr := rec.BitbrainsRAM
		if look > 0 {
			tr = tr.Part(0, 0.2, "")
		}
		for _, p := range MemoryPolicies() {
			r := RunMemory(tr, look, p.New(tr))
			fmt.Printf("%v %-20s slack %5.1f high %5.1f OOMs %d slow %5.2f %% resizes %d\n", look, p.Name, 100*r.Slack(), 100*r.HighSlack(), r.OOMs, 100*r.SlowDown/r.Seconds, r.Resizes)
		}
	}
}
