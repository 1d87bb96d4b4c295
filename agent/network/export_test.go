package network

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
)

// OnStep has f called before every step of Attach and Detach; an error breaks
// the call there.
func (n *Network) OnStep(f func(id, name string) error) { n.step = f }

// DropTail makes it do without fq_codel.
func (n *Network) DropTail() { n.droptail.Store(true) }

// Elements lists what the kernel has in the sets of our tables.
func Elements(tb interface{ Fatal(...any) }) []string {
	var all []string
	for _, s := range newTable(Config{}).sets() {
		c, err := nftables.New()
		if err != nil {
			tb.Fatal(err)
		}
		found, err := c.GetSetElements(s)
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range found {
			all = append(all, fmt.Sprintf("%s %x %x %s", s.Name, e.Key, e.Val, e.Comment))
		}
	}
	slices.Sort(all)
	return all
}

// FlushRuleset removes every table, as restarting the service nftables does.
func FlushRuleset(tb interface{ Fatal(...any) }) {
	c, err := nftables.New()
	if err != nil {
		tb.Fatal(err)
	}
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		tb.Fatal(err)
	}
}
