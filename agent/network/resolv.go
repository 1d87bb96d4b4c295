package network

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
)

// maxResolvConf is more than any resolv.conf has.
const maxResolvConf = 64 << 10

// maxServers is MAXNS of the C library: more name servers are not asked.
const maxServers = 3

// resolvConf is what a resolv.conf says; see resolv.conf(5).
type resolvConf struct {
	servers []netip.Addr
	search  []string
	options []string
}

var (
	domainName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)
	optionName = regexp.MustCompile(`^[a-z0-9-]{1,32}(:[0-9]{1,5})?$`)
)

// parseResolvConf reads one, leaving out what no C library would understand.
func parseResolvConf(text string) resolvConf {
	var c resolvConf
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.ContainsAny(line[:1], " \t#;") { // keywords begin the line
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil {
				c.servers = append(c.servers, a.Unmap())
			}
		case "search", "domain": // the last one counts
			c.search = nil
			for _, w := range words[1:] {
				if w == "." || len(w) <= 253 && domainName.MatchString(w) {
					c.search = append(c.search, w)
				}
			}
		case "options":
			for _, w := range words[1:] {
				if optionName.MatchString(w) && !slices.Contains(c.options, w) {
					c.options = append(c.options, w)
				}
			}
		}
	}
	return c
}

// resolvers are whom VMs ask.
type resolvers struct {
	servers  []netip.Addr // as VMs name them
	redirect netip.Addr   // who answers at the bridge's address; invalid if nobody has to
}

// hosts are the addresses that may turn out to be the host's own.
func (r resolvers) hosts() []netip.Addr {
	all := slices.Clone(r.servers)
	if r.redirect.IsValid() {
		all = append(all, r.redirect)
	}
	return all
}

// reachable turns the host's name servers into what a VM can name. Those on
// loopback or at a link-local address, where some clouds have theirs, are
// reached at the bridge's address, which the kernel translates. Only one of them
// can be: the first.
func (c resolvConf) reachable(gateway netip.Addr, ipv6 bool) (resolvers, error) {
	var r resolvers
	for _, a := range c.servers {
		if !a.IsLinkLocalUnicast() {
			a = a.WithZone("") // means nothing there
		}
		switch {
		case a.IsUnspecified(), a == netip.IPv6Loopback(): // both mean this host; route_localnet is IPv4's alone
			a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		case a.Is6() && (!ipv6 || a.IsLinkLocalUnicast()), a.IsMulticast():
			continue
		}
		if a.IsLoopback() || a.IsLinkLocalUnicast() {
			if !r.redirect.IsValid() {
				r.redirect = a
			}
			a = gateway
		}
		if !slices.Contains(r.servers, a) && len(r.servers) < maxServers {
			r.servers = append(r.servers, a)
		}
	}
	if len(r.servers) == 0 {
		return resolvers{}, ErrNoResolver
	}
	return r, nil
}

// isStub says whether an address is one where systemd-resolved answers: on loopback
// only, bound to that interface. A redirect to it would lead nowhere.
func isStub(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}

// behind puts those whom systemd-resolved asks in the place of its stub, which may
// stand among others.
func (c resolvConf) behind(up []netip.Addr) []netip.Addr {
	var all []netip.Addr
	for _, a := range c.servers {
		if !isStub(a) {
			all = append(all, a)
			continue
		}
		all = append(all, up...)
		up = nil
	}
	return all
}

// text is the file for a VM.
func (c resolvConf) text(r resolvers) string {
	var b strings.Builder
	for _, a := range r.servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(c.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.search, " "))
	}
	if len(c.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.options, " "))
	}
	return b.String()
}

// readResolvers reads what the host uses. Without a file, or name servers in it,
// that is a resolver on loopback.
func (n *Network) readResolvers() (resolvConf, resolvers, error) {
	text, err := readSmall(n.cfg.ResolvConf)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return resolvConf{}, resolvers{}, err
	}
	c := parseResolvConf(text)
	if slices.ContainsFunc(c.servers, isStub) {
		text, _ := readSmall(n.cfg.SystemdResolv) // one that is not there names nobody
		if c.servers = c.behind(parseResolvConf(text).servers); len(c.servers) == 0 {
			return c, resolvers{}, fmt.Errorf("%w: only systemd-resolved's stub is known, and %s names nobody", ErrNoResolver, n.cfg.SystemdResolv)
		}
	}
	if len(c.servers) == 0 {
		c.servers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	r, err := c.reachable(n.cfg.gateway().IPv4.Addr(), n.ipv6)
	return c, r, err
}

func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	return string(b), err
}

// ResolvConf is what /etc/resolv.conf must hold in a VM, by what the host's says
// now: its own resolvers, its search list and options. Where a resolver listens on
// loopback only, the bridge's address is named and the rules are made to lead
// there; no process of ours is in the way.
func (n *Network) ResolvConf() (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, r, err := n.readResolvers()
	if err != nil {
		return "", fmt.Errorf("resolv.conf: %w", err)
	}
	if n.table == nil {
		return "", fmt.Errorf("resolv.conf: %w", errNotOpen)
	}
	if err := n.table.resolve(r); err != nil {
		return "", fmt.Errorf("resolv.conf: %w", err)
	}
	return c.text(r), nil
}
