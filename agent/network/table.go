package network

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const tableName = "cloudflash"

// table is our two nftables tables, and what is known to be in their sets.
type table struct {
	cfg          Config
	bridge, inet *nftables.Table

	// Of the bridge family: port, MAC and address that belong together; ports of
	// VMs in bridge mode.
	allowed4, allowed6, peers *nftables.Set
	// Of the inet family: addresses of VMs in bridge mode; published ports, on
	// every address of the host and on one.
	peers4, peers6, publish4, publish6, publish4at, publish6at *nftables.Set

	have      map[place]element
	resolvers resolvers // those the rules are for
}

func newTable(cfg Config) *table {
	b := &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}
	i := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	to4 := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	to6 := nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
	return &table{
		cfg: cfg, bridge: b, inet: i, have: map[place]element{},
		allowed4:   set(b, "allowed4", nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr),
		allowed6:   set(b, "allowed6", nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIP6Addr),
		peers:      set(b, "peers", nftables.TypeIFName),
		peers4:     set(i, "peers4", nftables.TypeIPAddr),
		peers6:     set(i, "peers6", nftables.TypeIP6Addr),
		publish4:   mapTo(to4, set(i, "publish4", nftables.TypeInetProto, nftables.TypeInetService)),
		publish6:   mapTo(to6, set(i, "publish6", nftables.TypeInetProto, nftables.TypeInetService)),
		publish4at: mapTo(to4, set(i, "publish4at", nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)),
		publish6at: mapTo(to6, set(i, "publish6at", nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)),
	}
}

func set(t *nftables.Table, name string, key ...nftables.SetDatatype) *nftables.Set {
	s := &nftables.Set{Table: t, Name: name, KeyType: key[0]}
	if len(key) > 1 {
		s.KeyType, s.Concatenation = nftables.MustConcatSetType(key...), true
	}
	return s
}

func mapTo(data nftables.SetDatatype, s *nftables.Set) *nftables.Set {
	s.IsMap, s.DataType = true, data
	return s
}

func (t *table) sets() []*nftables.Set {
	return []*nftables.Set{t.allowed4, t.allowed6, t.peers, t.peers4, t.peers6, t.publish4, t.publish6, t.publish4at, t.publish6at}
}

// install makes tables, sets and rules what they should be, in one transaction,
// so that no packet sees less than all rules. Elements stay; those that are
// missing come back.
func (t *table) install(r resolvers) error {
	c, err := nftables.New()
	if err != nil {
		return &UnsupportedError{Feature: "nf_tables", Err: err}
	}
	c.AddTable(t.bridge)
	c.AddTable(t.inet)
	for _, s := range t.sets() {
		s.ID = 0 // a new one, or the rules of the batch would find the set of an earlier one
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	addChains(c, t.bridge, t.bridgeChains())
	addChains(c, t.inet, t.inetChains(r))
	if err := c.Flush(); err != nil {
		return t.unsupported(err)
	}
	t.resolvers = r
	return t.reload()
}

// resolve makes the rules for the host's resolvers, unless they are.
func (t *table) resolve(r resolvers) error {
	if slices.Equal(r.hosts(), t.resolvers.hosts()) {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	addChains(c, t.inet, []chain{{name: "resolvers", rules: resolverRules(r)}, {name: "dns", rules: t.dnsRules(r)}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("change table %s: %w", tableName, err)
	}
	t.resolvers = r
	return nil
}

// unsupported names what is missing when the kernel refuses the tables: it says
// ENOENT or EOPNOTSUPP for kinds of tables, chains and expressions it lacks.
func (t *table) unsupported(err error) error {
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("install table %s: %w", tableName, err)
	}
	for feature, table := range map[string]*nftables.Table{"nf_tables": t.inet, "nf_tables for bridges": t.bridge} {
		c, dialErr := nftables.New()
		if dialErr == nil {
			c.AddTable(table)
			c.DelTable(table)
			dialErr = c.Flush()
		}
		if dialErr != nil && !errors.Is(dialErr, unix.EBUSY) {
			return &UnsupportedError{Feature: feature, Err: dialErr}
		}
	}
	return &UnsupportedError{Feature: "one of nft_nat, nft_masq, nft_fib_inet, nft_ct", Err: err}
}

func addChains(c *nftables.Conn, t *nftables.Table, chains []chain) {
	for _, ch := range chains { // all of them first: rules jump
		c.AddChain(ch.of(t))
		c.FlushChain(ch.of(t))
	}
	for _, ch := range chains {
		for _, m := range ch.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch.of(t), Exprs: m})
		}
	}
}

func (ch chain) of(t *nftables.Table) *nftables.Chain {
	n := &nftables.Chain{Name: ch.name, Table: t, Type: ch.kind, Hooknum: ch.hook}
	if ch.hook != nil {
		n.Priority = nftables.ChainPriorityRef(ch.priority)
	}
	return n
}

// reload reads the elements of all sets, and puts back those that this process
// has added and somebody has removed.
func (t *table) reload() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	found := map[place]element{}
	for _, s := range t.sets() {
		all, err := c.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("read set %s: %w", s.Name, err)
		}
		for _, e := range all {
			found[place{s.Name, string(e.Key)}] = element{set: s, key: string(e.Key), value: string(e.Val), vm: e.Comment}
		}
	}
	var missing []element
	for at, e := range t.have {
		if _, ok := found[at]; !ok {
			missing = append(missing, e)
		}
	}
	t.have = found
	return t.change(missing, nil)
}

// change adds and removes elements in one transaction.
func (t *table) change(add, del []element) error {
	if len(add)+len(del) == 0 {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	for _, s := range t.sets() { // removals first: a port may go from one VM to another
		if err := inBatches(s, del, c.SetDeleteElements); err != nil {
			return err
		}
	}
	for _, s := range t.sets() {
		if err := inBatches(s, add, c.SetAddElements); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("change table %s: %w", tableName, err)
	}
	for _, e := range del {
		delete(t.have, e.place())
	}
	for _, e := range add {
		t.have[e.place()] = e
	}
	return nil
}

// inBatches keeps messages below the 64 KiB that an attribute may have.
func inBatches(s *nftables.Set, all []element, do func(*nftables.Set, []nftables.SetElement) error) error {
	var of []nftables.SetElement
	for _, e := range all {
		if e.set.Name == s.Name {
			of = append(of, nftables.SetElement{Key: []byte(e.key), Val: []byte(e.value), Comment: e.vm})
		}
	}
	for batch := range slices.Chunk(of, 300) {
		if err := do(s, batch); err != nil {
			return err
		}
	}
	return nil
}

// remove removes both tables.
func (t *table) remove() error {
	for _, table := range []*nftables.Table{t.bridge, t.inet} {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.AddTable(table) // or it would be an error that there is none
		c.DelTable(table)
		if err := c.Flush(); err != nil {
			return fmt.Errorf("remove table %s: %w", tableName, err)
		}
	}
	return nil
}
