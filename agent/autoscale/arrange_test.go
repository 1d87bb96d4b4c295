package autoscale_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"pgregory.net/rapid"
)

func wish(vm string, sla int, from, to float64, waited time.Duration) autoscale.Decision {
	d := autoscale.Decision{VM: vm, SLA: sla, Resource: autoscale.CPU, Action: autoscale.Grow, From: from, To: to,
		Status: autoscale.Proposed, Waiting: time.Unix(1e9, 0).Add(-waited)}
	if to < from {
		d.Action = autoscale.Shrink
	}
	return d
}

func TestArrange(t *testing.T) {
	room := func(free float64) autoscale.Room {
		return autoscale.Room{All: autoscale.Limits{autoscale.CPU: 16}, Free: autoscale.Limits{autoscale.CPU: free}}
	}
	offer := func(vm string, sla int, from, spare float64) autoscale.Offer {
		return autoscale.Offer{VM: vm, SLA: sla, Res: autoscale.CPU, From: from, Spare: spare}
	}
	for name, c := range map[string]struct {
		wishes []autoscale.Decision
		offers []autoscale.Offer
		free   float64
		want   string
	}{
		"shrinks go first, then class, then who waited": {
			[]autoscale.Decision{wish("a", 1, 1, 2, 0), wish("b", 3, 1, 2, 0), wish("c", 2, 1, 2, time.Minute), wish("d", 2, 1, 2, time.Hour), wish("e", 1, 4, 2, 0)}, nil, 8,
			"e 4→2 granted, b 1→2 granted, d 1→2 granted, c 1→2 granted, a 1→2 granted"},
		"what does not fit is granted in part, then deferred": {
			[]autoscale.Decision{wish("a", 2, 1, 2, time.Hour), wish("b", 2, 4, 8, time.Minute), wish("c", 2, 4, 8, 0)}, nil, 2,
			"a 1→2 granted, b 4→5 granted, c 4→8 deferred"},
		"more than the host will ever have": {
			[]autoscale.Decision{wish("a", 2, 15, 20, 0)}, nil, 0, "a 15→20 infeasible"},
		"those who have to spare give, never to a lower class": {
			[]autoscale.Decision{wish("a", 2, 1, 2, 0)}, []autoscale.Offer{offer("high", 3, 4, 3), offer("low", 1, 4, 3), offer("a", 2, 1, 0.5)}, 0,
			"low 4→3 granted, a 1→2 deferred"},
		"nobody is asked twice": {
			[]autoscale.Decision{wish("a", 2, 1, 2, time.Hour), wish("b", 2, 1, 2, 0)}, []autoscale.Offer{offer("c", 1, 2, 0.5), offer("d", 1, 2, 0.4)}, 0,
			"c 2→1.5 granted, d 2→1.6 granted, a 1→2 deferred, b 1→2 deferred"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range autoscale.Arrange(c.wishes, c.offers, room(c.free)) {
				got = append(got, fmt.Sprintf("%s %v→%v %s", d.VM, d.From, d.To, d.Status))
			}
			if g := strings.Join(got, ", "); g != c.want {
				t.Errorf("got  %s\nwant %s", g, c.want)
			}
		})
	}
}

func TestArrangeNeverPromisesTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		free := rapid.Float64Range(0, 10).Draw(t, "free")
		var wishes []autoscale.Decision
		var offers []autoscale.Offer
		for i := range rapid.IntRange(0, 20).Draw(t, "wishes") {
			d := wish(fmt.Sprint("w", i), rapid.IntRange(1, 3).Draw(t, "sla"), rapid.Float64Range(0.1, 8).Draw(t, "from"), rapid.Float64Range(0.1, 16).Draw(t, "to"), 0)
			wishes = append(wishes, d)
		}
		for i := range rapid.IntRange(0, 5).Draw(t, "offers") {
			from := rapid.Float64Range(0.1, 8).Draw(t, "from")
			offers = append(offers, autoscale.Offer{VM: fmt.Sprint("o", i), SLA: rapid.IntRange(1, 3).Draw(t, "sla"), Res: autoscale.CPU, From: from, Spare: from * rapid.Float64Range(0, 1).Draw(t, "spare")})
		}
		got := autoscale.Arrange(wishes, offers, autoscale.Room{All: autoscale.Limits{autoscale.CPU: 12}, Free: autoscale.Limits{autoscale.CPU: free}})
		sum, grown, given := 0.0, false, map[string]int{}
		for _, d := range got {
			if d.Status == autoscale.Proposed {
				t.Fatalf("undecided: %+v", d)
			}
			if d.Up() && d.Status == autoscale.Granted {
				grown, sum = true, sum+d.To-d.From
				if d.To < d.From {
					t.Fatalf("grows to less: %+v", d)
				}
			}
			if !d.Up() && grown {
				t.Fatalf("shrinks after something grew: %+v", d)
			}
			if d.Signal == autoscale.ByHost {
				if given[d.VM]++; given[d.VM] > 1 || d.To < d.From/2-1e-9 {
					t.Fatalf("asked too much of %+v", d)
				}
			}
		}
		if sum > free+1e-9 {
			t.Fatalf("promised %v of %v", sum, free)
		}
	})
}

func TestRoomKeepsAReserve(t *testing.T) {
	room := autoscale.NewRoom(8, 4<<30, autoscale.Limits{autoscale.CPU: 4}, autoscale.Limits{autoscale.CPU: 30, autoscale.Memory: 1 << 30})
	if !near(room.All[autoscale.CPU], 28.8, 1e-9) || room.Free[autoscale.CPU] != 0 || room.All[autoscale.Memory] != 3<<30 || room.Free[autoscale.Memory] != 2<<30 {
		t.Errorf("room = %+v", room)
	}
	if room := autoscale.NewRoom(8, 4<<30, autoscale.Limits{autoscale.CPU: 0.5}, autoscale.Limits{}); !near(room.All[autoscale.CPU], 3.6, 1e-9) {
		t.Errorf("half the host may be promised: room = %+v", room)
	}
}

func TestAnInfeasibleWishIsSettled(t *testing.T) {
	refused := wish("a", 2, 15, 20, 0)
	refused.Status = autoscale.Infeasible
	if !autoscale.Settled(refused, wish("a", 2, 15, 19, 0)) || autoscale.Settled(refused, wish("a", 2, 10, 12, 0)) || autoscale.Settled(refused, wish("b", 2, 15, 20, 0)) {
		t.Error("settled what is not, or not what is")
	}
}

// A VM that may not grow gets all that it has: below memory.high it would crawl.
func TestMemoryThatCannotGrowIsNotSlowedDown(t *testing.T) {
	for name, room := range map[string]autoscale.Room{
		"full":  {All: autoscale.Limits{autoscale.Memory: 1 << 30}},
		"never": {All: autoscale.Limits{autoscale.Memory: 32 * mib}},
	} {
		d := autoscale.Decision{VM: "a", SLA: 2, Resource: autoscale.Memory, Action: autoscale.Grow, Status: autoscale.Proposed,
			From: 64 * mib, To: 128 * mib, HighFrom: 57 * mib, HighTo: 115 * mib, Owed: 64 * mib}
		got := autoscale.Arrange([]autoscale.Decision{d}, nil, room)[0]
		if got.Status != autoscale.Granted || got.To != d.From || got.HighTo != d.From || got.Why == "" {
			t.Errorf("%s: %+v", name, got)
		}
		d.HighFrom = d.From
		if got = autoscale.Arrange([]autoscale.Decision{d}, nil, room)[0]; got.Status == autoscale.Granted {
			t.Errorf("%s, once more: %+v", name, got)
		}
	}
}
