package autoscale

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Room is what the host has: All is what VMs may be promised at most, the reserve of
// the host taken off and overcommitment included; Free is what of that is not
// promised now. A resource with All 0 is not limited by the host.
type Room struct {
	All  Limits
	Free Limits
}

// The host's reserve: a tenth of its cores, a tenth of its memory or 1 GiB,
// whichever is more (Borg and oomd keep some too; less starves the agent itself).
const (
	reserveShare  = 0.1
	reserveMemory = 1 << 30
)

// NewRoom is the room on a host with so many cores and bytes of memory, that may be
// promised as often as overcommit says (0 is once; less than once leaves some to
// others), of which VMs have been promised so much.
func NewRoom(cores, memory float64, overcommit, promised Limits) Room {
	var r Room
	times := func(res Resource) float64 { return cmp.Or(overcommit[res], 1) }
	r.All[CPU] = cores * (1 - reserveShare) * times(CPU)
	r.All[Memory] = max(memory-max(reserveShare*memory, reserveMemory), 0) * times(Memory)
	for _, res := range [...]Resource{CPU, Memory} {
		r.Free[res] = max(r.All[res]-promised[res], 0)
	}
	return r
}

// An Offer is a VM that could give something now.
type Offer struct {
	VM     string
	SLA    int
	Res    Resource
	From   float64
	Spare  float64
	Peak   float64
	Window time.Duration
}

// Offer is what the VM could give of a resource if another needs it; ok is false
// when that is not worth it.
func (s *Scaler) Offer(res Resource) (o Offer, ok bool) {
	spare, peak, window := s.Spare(res)
	l := &s.loops[res]
	return Offer{s.vm, s.policy.SLA, res, l.limit, spare, peak, window}, spare >= deadBand*l.limit && spare > 0
}

// Arrange puts the wishes of all VMs in the order in which they are to be carried
// out, and says which the host has no room for: first what shrinks, then what
// grows, by class, then by how long it has waited. A wish that fits in part is
// granted in part. Where it does not fit, VMs that offer something are asked for
// it first, those of the lowest class before others and never those of a higher
// one; what they give is free when it has been given, so the wish waits for the
// next round. A wish for more than the host will ever have is infeasible.
//
// What has been promised twice in one round is not: free is used up as wishes are
// granted. What shrinks in this round counts for the next: memory is free when it
// has been reclaimed, not when that was asked for.
func Arrange(wishes []Decision, offers []Offer, room Room) []Decision {
	out := slices.Clone(wishes)
	slices.SortStableFunc(out, order)
	free := room.Free
	for i := range out {
		d := &out[i]
		if d.Status != Proposed {
			continue
		}
		if !d.Up() || room.All[d.Resource] <= 0 || d.To <= d.From {
			d.Status = Granted
			continue
		}
		grant(d, &free, room)
	}
	var squeezed []Decision
	offers = slices.Clone(offers)
	slices.SortStableFunc(offers, func(a, b Offer) int {
		return cmp.Or(cmp.Compare(a.SLA, b.SLA), cmp.Compare(b.Spare, a.Spare), cmp.Compare(a.VM, b.VM))
	})
	offers = idle(offers, wishes)
	for i := range out {
		if d := &out[i]; d.Status == Deferred && d.Why == full && len(offers) > 0 {
			asked := squeeze(d, offers)
			squeezed = append(squeezed, asked...)
			if len(asked) > 0 {
				offers = slices.DeleteFunc(offers, func(o Offer) bool { return o.Spare <= 0 })
			}
		}
	}
	return append(squeezed, out...)
}

const full = "the host is full"

func order(a, b Decision) int {
	up := func(d Decision) int {
		if d.Up() {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(up(a), up(b)), cmp.Compare(b.SLA, a.SLA), a.Waiting.Compare(b.Waiting),
		cmp.Compare(a.VM, b.VM), cmp.Compare(a.Resource, b.Resource))
}

// grant gives a wish what there is, where that is worth it. What the VM was asked
// for as is its own, and taken from nobody.
func grant(d *Decision, free *Limits, room Room) {
	res := d.Resource
	base, has := max(d.From, d.Owed), free[res]
	more := max(d.To-base, 0)
	switch {
	case more <= has:
		d.Status = Granted
	case base+has >= (1+deadBand)*d.From:
		d.Status, d.Why = Granted, fmt.Sprintf("in part: %s was wished for and %s is free", res.Amount(d.To), res.Amount(has))
		d.To = base + has
		if res == Memory {
			d.To = float64(int64(d.To) / pageSize * pageSize)
			d.HighTo = min(d.HighTo, max(page(highShare*d.To), d.HighFrom))
		}
	case d.spill("no more is free"):
		d.Status = Granted
		return
	case d.From+deadBand*d.From > room.All[res]:
		d.Status, d.Why = Infeasible, fmt.Sprintf("the host has %s for VMs in all", res.Amount(room.All[res]))
		return
	default:
		d.Status, d.Why = Deferred, full
		return
	}
	free[res] -= max(d.To-base, 0)
}

// idle are the offers of what is not about to change anyway.
func idle(offers []Offer, wishes []Decision) []Offer {
	type one struct {
		vm  string
		res Resource
	}
	changing := make(map[one]bool, len(wishes))
	for i := range wishes {
		changing[one{wishes[i].VM, wishes[i].Resource}] = true
	}
	return slices.DeleteFunc(offers, func(o Offer) bool { return changing[one{o.VM, o.Res}] })
}

// squeeze asks others for what a wish needs.
func squeeze(d *Decision, offers []Offer) (asked []Decision) {
	missing := d.To - max(d.From, d.Owed)
	for i := range offers {
		o := &offers[i]
		if missing <= 0 {
			break
		}
		if o.Res != d.Resource || o.VM == d.VM || o.SLA > d.SLA || o.Spare <= 0 {
			continue
		}
		give := min(o.Spare, max(missing, deadBand*o.From), o.From/2)
		shrink := Decision{At: d.At, VM: o.VM, Resource: o.Res, Action: Shrink, Signal: ByHost, From: o.From, To: o.From - give,
			Peak: o.Peak, Window: o.Window, SLA: o.SLA, Status: Granted}
		if o.Res == Memory {
			shrink.To = page(shrink.To)
			shrink.HighTo = page(highShare * shrink.To)
		}
		asked = append(asked, shrink)
		o.Spare, missing = 0, missing-give
	}
	return asked
}

// Settled reports whether a wish that was infeasible would be so again: it is, until
// it asks for less.
func Settled(refused, wish Decision) bool {
	return refused.Status == Infeasible && refused.VM == wish.VM && refused.Resource == wish.Resource && wish.From >= refused.From
}
