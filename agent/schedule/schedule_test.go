package schedule

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func at(s int) time.Duration { return time.Duration(s) * time.Second }

func TestFirstFit(t *testing.T) {
	small := Node{ID: "small", CPUs: 1, MemoryBytes: 1 << 30}
	big := Node{ID: "big", CPUs: 4, MemoryBytes: 8 << 30}
	tests := map[string]struct {
		queue []Item
		nodes []Node
		want  []Placement
		wait  []string
	}{
		"high SLA goes first": {
			queue: []Item{{ID: "low", SLA: 1, CPUs: 1}, {ID: "high", SLA: 3, CPUs: 1}},
			nodes: []Node{small},
			want:  []Placement{{"high", "small"}},
			wait:  []string{"low"},
		},
		"earlier deadline goes first, none goes last": {
			queue: []Item{{ID: "none", CPUs: 1, Deadline: NoDeadline}, {ID: "late", CPUs: 1, Deadline: at(90)},
				{ID: "soon", CPUs: 1, Deadline: at(10)}},
			nodes: []Node{{ID: "n", CPUs: 2, MemoryBytes: 1}},
			want:  []Placement{{"soon", "n"}, {"late", "n"}},
			wait:  []string{"none"},
		},
		"what does not fit is passed": {
			queue: []Item{{ID: "huge", SLA: 3, CPUs: 9}, {ID: "tiny", SLA: 1, CPUs: 0.5}},
			nodes: []Node{small, big},
			want:  []Placement{{"tiny", "small"}},
			wait:  []string{"huge"},
		},
		"a pinned cloudlet waits for its VM": {
			queue: []Item{{ID: "pinned", VM: "small", CPUs: 2}},
			nodes: []Node{small, big},
			wait:  []string{"pinned"},
		},
		"tenths add up": {
			queue: []Item{{ID: "a", CPUs: 0.1}, {ID: "b", CPUs: 0.1}, {ID: "c", CPUs: 0.1}},
			nodes: []Node{{ID: "n", CPUs: 0.3}},
			want:  []Placement{{"a", "n"}, {"b", "n"}, {"c", "n"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := FirstFit{}.Plan(tt.queue, tt.nodes)
			if diff := cmp.Diff(tt.want, got.Placements); diff != "" {
				t.Error(diff)
			}
			for _, id := range tt.wait {
				if got.Waiting[id] == "" {
					t.Errorf("%s waits without a reason", id)
				}
			}
			if len(got.Waiting) != len(tt.wait) {
				t.Errorf("waiting = %v, want %v", got.Waiting, tt.wait)
			}
		})
	}
}

// No VM is ever promised more than it has, and every item is placed or waits.
func TestFirstFitNeverOverfills(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Node {
			return Node{CPUs: rapid.Float64Range(0, 8).Draw(t, "cpus"), MemoryBytes: rapid.Int64Range(0, 1<<33).Draw(t, "mem")}
		}), 0, 6).Draw(t, "nodes")
		for i := range nodes {
			nodes[i].ID = string(rune('a' + i))
		}
		queue := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Item {
			return Item{ID: rapid.StringMatching(`[a-z]{8}`).Draw(t, "id"), SLA: rapid.IntRange(1, 3).Draw(t, "sla"), CPUs: rapid.Float64Range(0, 4).Draw(t, "cpus"), MemoryBytes: rapid.Int64Range(0, 1<<32).Draw(t, "mem")}
		}), 0, 30, func(i Item) string { return i.ID }).Draw(t, "queue")
		plan := FirstFit{}.Plan(queue, nodes)
		if len(plan.Placements)+len(plan.Waiting) != len(queue) {
			t.Fatalf("%d placed + %d waiting of %d", len(plan.Placements), len(plan.Waiting), len(queue))
		}
		free := map[string]Node{}
		for _, n := range nodes {
			free[n.ID] = n
		}
		items := map[string]Item{}
		for _, it := range queue {
			items[it.ID] = it
		}
		for _, p := range plan.Placements {
			n := free[p.VM]
			n.CPUs -= items[p.Item].CPUs
			n.MemoryBytes -= items[p.Item].MemoryBytes
			if n.CPUs < -1e-6 || n.MemoryBytes < 0 {
				t.Fatalf("%s overfilled", p.VM)
			}
			free[p.VM] = n
		}
	})
}
