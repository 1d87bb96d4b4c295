package network

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"pgregory.net/rapid"
)

func TestNew(t *testing.T) {
	for name, c := range map[string]struct {
		cfg Config
		ok  bool
	}{
		"defaults":                    {Config{}, true},
		"small pool":                  {Config{Pool: netip.MustParsePrefix("10.0.0.0/29")}, true},
		"pool of one":                 {Config{Pool: netip.MustParsePrefix("10.0.0.0/30")}, false},
		"pool with host bits":         {Config{Pool: netip.MustParsePrefix("10.0.0.1/16")}, false},
		"pool of IPv6":                {Config{Pool: netip.MustParsePrefix("fd00::/64")}, false},
		"prefix of IPv4":              {Config{ULA: netip.MustParsePrefix("10.0.0.0/16")}, false},
		"narrow prefix":               {Config{ULA: netip.MustParsePrefix("fd00::/112")}, false},
		"long name":                   {Config{Bridge: "abcdefghijklmnop"}, false},
		"name with a slash":           {Config{Bridge: "a/b"}, false},
		"name of a VM's link":         {Config{Bridge: "cfv0123456789"}, false},
		"name that sysctl would read": {Config{Bridge: "../all"}, false},
	} {
		if _, err := New(c.cfg); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLinkCheck(t *testing.T) {
	good := Link{ID: "0123456789", Mode: NAT, RateBPS: 1e6}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	web := Publish{HostPort: 80, GuestPort: 80, Protocol: "tcp"}
	for name, change := range map[string]func(*Link){
		"id is a name":          func(l *Link) { l.ID = "web" },
		"id is in capitals":     func(l *Link) { l.ID = "ABCDEF0123" },
		"no mode":               func(l *Link) { l.Mode = "" },
		"no rate":               func(l *Link) { l.RateBPS = 0 },
		"negative rate":         func(l *Link) { l.RateBPS = -1 },
		"rate beyond all":       func(l *Link) { l.RateBPS = math.MaxInt64 },
		"port 0":                func(l *Link) { l.Publish = []Publish{{GuestPort: 1, Protocol: "tcp"}} },
		"guest port 0":          func(l *Link) { l.Publish = []Publish{{HostPort: 1, Protocol: "tcp"}} },
		"protocol":              func(l *Link) { l.Publish = []Publish{{HostPort: 1, GuestPort: 1, Protocol: "sctp"}} },
		"twice":                 func(l *Link) { l.Publish = []Publish{web, web} },
		"address with a zone":   func(l *Link) { p := web; p.HostIP = netip.MustParseAddr("fe80::1%eth0"); l.Publish = []Publish{p} },
		"IPv4 disguised as v6":  func(l *Link) { p := web; p.HostIP = netip.MustParseAddr("::ffff:1.2.3.4"); l.Publish = []Publish{p} },
		"overlapping addresses": func(l *Link) { p := web; p.HostIP = netip.MustParseAddr("1.2.3.4"); l.Publish = []Publish{p, p} },
	} {
		l := good
		change(&l)
		if err := l.check(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Addresses are in the pool, nobody's twice, and always the same for a slot.
func TestAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(8, 29).Draw(t, "bits")
		base := rapid.Uint32().Draw(t, "base")
		pool := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(base >> 24), byte(base >> 16), byte(base >> 8), byte(base)}), bits).Masked()
		n, err := New(Config{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		c := n.cfg
		a, b := rapid.IntRange(-2, MaxSlots+2).Draw(t, "a"), rapid.IntRange(-2, MaxSlots+2).Draw(t, "b")
		x, errX := c.address(a)
		y, errY := c.address(b)
		if fits := a >= 0 && a < c.slots(); fits != (errX == nil) || !fits && !errors.Is(errX, ErrExhausted) {
			t.Fatalf("slot %d of %d: %v", a, c.slots(), errX)
		}
		if errX != nil || errY != nil {
			return
		}
		gateway, broadcast := c.gateway(), host(pool, 1<<(32-bits)-1)
		for _, p := range []netip.Prefix{pool, gateway.IPv4, broadcast} {
			if x.IPv4.Addr() == p.Addr() {
				t.Fatalf("slot %d has %s", a, p)
			}
		}
		if !pool.Contains(x.IPv4.Addr()) || !c.ULA.Contains(x.IPv6.Addr()) || x.IPv4.Bits() != bits {
			t.Fatalf("slot %d has %v", a, x)
		}
		if (a == b) != (x.IPv4 == y.IPv4) || (a == b) != (x.IPv6 == y.IPv6) || (a == b) != (mac(x.IPv4.Addr()).String() == mac(y.IPv4.Addr()).String()) {
			t.Fatalf("slots %d and %d have %v and %v", a, b, x, y)
		}
		if m := mac(x.IPv4.Addr()); m[0]&3 != 2 {
			t.Fatalf("%s is not a local address of one station", m)
		}
		if g := group(a); !ourGroup(g) || g == groupProbe || g == groupBridge {
			t.Fatalf("slot %d is in group %#x", a, g)
		}
	})
}

func TestLinkNames(t *testing.T) {
	for name, want := range map[string]string{
		vethName("0123456789"): "0123456789", ifbName("abcdef0123"): "abcdef0123",
		"cfv": "", "cfv012345678": "", "cfv01234567890": "", "cfvxyz0123456": "", "cfx0123456789": "", "cf0": "", "eth0": "",
	} {
		if got := linkID(name); got != want || len(name) > 15 {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := linkLocal(mac(netip.MustParseAddr("10.88.0.2"))); got != netip.MustParseAddr("fe80::cf:aff:fe58:2") {
		t.Error(got)
	}
}

func TestBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bps := rapid.Int64Range(MinRate, MaxRate).Draw(t, "bps")
		b := bucketFor(bps)
		burst := float64(b.burst) * 64e-9 * float64(b.rate)
		if b.rate != uint64(bps)/8 || burst < 2*frame-b64(b.rate) || burst > max(2*frame, 0.0081*float64(b.rate)) {
			t.Fatalf("%d bit/s: %+v, burst of %.0f bytes", bps, b, burst)
		}
		if wait := float64(b.limit) / float64(b.rate); b.limit < frame || bps >= 10e6 && wait > 0.021 {
			t.Fatalf("%d bit/s: %d bytes wait for %.3f s", bps, b.limit, wait)
		}
	})
	if b := bucketFor(10e9); b.rate != 1.25e9 || time.Duration(b.burst)*64 != burstTime || b.target != 5000 {
		t.Errorf("%+v", b)
	}
}

// b64 is what a tick more or less is in bytes.
func b64(rate uint64) float64 { return 1 + float64(rate)*64e-9 }

func TestResolvConf(t *testing.T) {
	gateway := netip.MustParseAddr("10.88.0.1")
	for name, c := range map[string]struct {
		text, want string
		redirect   string
		noIPv6     bool
	}{
		"plain":                        {text: "nameserver 192.0.2.2\nnameserver 2001:db8::2\n", want: "nameserver 192.0.2.2\nnameserver 2001:db8::2\n"},
		"search and options":           {text: "search a.example b.example.\noptions ndots:2 timeout:1 rotate\nnameserver 192.0.2.2", want: "nameserver 192.0.2.2\nsearch a.example b.example.\noptions ndots:2 timeout:1 rotate\n"},
		"the last search counts":       {text: "domain a.example\nsearch b.example\nnameserver 192.0.2.2\n", want: "nameserver 192.0.2.2\nsearch b.example\n"},
		"comments and junk":            {text: "# x\n; y\n\n nameserver 192.0.2.9\nnameserver\nnameserver x\nsortlist 1.2.3.4\nnameserver 192.0.2.2 # main\n", want: "nameserver 192.0.2.2\n"},
		"junk in lists":                {text: "nameserver 192.0.2.2\nsearch a..b -x $(id) ok.example\noptions ndots:x debug; edns0\n", want: "nameserver 192.0.2.2\nsearch ok.example\noptions edns0\n"},
		"three at most":                {text: strings.Repeat("nameserver 192.0.2.1\n", 2) + "nameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n", want: "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"},
		"loopback":                     {text: "nameserver 127.0.0.1\n", want: "nameserver 10.88.0.1\n", redirect: "127.0.0.1"},
		"IPv6 loopback":                {text: "nameserver ::1\n", want: "nameserver 10.88.0.1\n", redirect: "127.0.0.1"},
		"unspecified is loopback":      {text: "nameserver 0.0.0.0\n", want: "nameserver 10.88.0.1\n", redirect: "127.0.0.1"},
		"link-local":                   {text: "nameserver 169.254.169.253\n", want: "nameserver 10.88.0.1\n", redirect: "169.254.169.253"},
		"the first of two hidden ones": {text: "nameserver 127.0.0.53\nnameserver 127.0.0.1\nnameserver 192.0.2.2\n", want: "nameserver 10.88.0.1\nnameserver 192.0.2.2\n", redirect: "127.0.0.53"},
		"order is kept":                {text: "nameserver 192.0.2.2\nnameserver 127.0.0.1\n", want: "nameserver 192.0.2.2\nnameserver 10.88.0.1\n", redirect: "127.0.0.1"},
		"IPv6 without IPv6":            {text: "nameserver 2001:db8::2\nnameserver 192.0.2.2\n", want: "nameserver 192.0.2.2\n", noIPv6: true},
		"IPv6 of one link only":        {text: "nameserver fe80::1%eth0\nnameserver 192.0.2.2\n", want: "nameserver 192.0.2.2\n"},
		"disguised IPv4":               {text: "nameserver ::ffff:192.0.2.2\n", want: "nameserver 192.0.2.2\n"},
		"CRLF":                         {text: "nameserver 192.0.2.2\r\nsearch a.example\r\n", want: "nameserver 192.0.2.2\nsearch a.example\n"},
	} {
		conf := parseResolvConf(c.text)
		r, err := conf.reachable(gateway, !c.noIPv6)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, conf.text(r)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if got := r.redirect; got.IsValid() != (c.redirect != "") || got.IsValid() && got.String() != c.redirect {
			t.Errorf("%s: redirected to %s", name, got)
		}
	}
	if _, err := parseResolvConf("nameserver fe80::1%eth0\nnameserver 224.0.0.1\n").reachable(gateway, true); !errors.Is(err, ErrNoResolver) {
		t.Error(err)
	}
}

// What is written for a VM reads the same again and holds nothing but the three
// kinds of lines.
func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.org\n", true)
	f.Add("nameserver 0::%0\nnameserver ::1%0", true)
	f.Add("nameserver fe80::1%eth0\r\nnameserver ::1\n;x\ndomain \x00", false)
	gateway := netip.MustParseAddr("10.88.0.1")
	f.Fuzz(func(t *testing.T, text string, ipv6 bool) {
		conf := parseResolvConf(text)
		r, err := conf.reachable(gateway, ipv6)
		if err != nil {
			return
		}
		if len(r.servers) > maxServers {
			t.Errorf("%v", r.servers)
		}
		for _, a := range r.servers {
			if a.IsLoopback() || a.IsLinkLocalUnicast() || a.Zone() != "" {
				t.Errorf("a VM cannot reach %s", a)
			}
		}
		out := conf.text(r)
		again := parseResolvConf(out)
		s, err := again.reachable(gateway, ipv6)
		if err != nil || again.text(s) != out {
			t.Errorf("%q becomes %q", out, again.text(s))
		}
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "nameserver ") && !strings.HasPrefix(line, "search ") && !strings.HasPrefix(line, "options ") {
				t.Errorf("%q", line)
			}
		}
	})
}

// A VM can not make the kernel send malformed messages, but the next kernel may
// send longer ones.
func FuzzMessages(f *testing.F) {
	tc := (&nl.TcMsg{}).Serialize()
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_TBF_PARMS, (&nl.TcTbfQopt{Rate: nl.TcRateSpec{Rate: 1250000}}).Serialize())
	message := append(tc, options.Serialize()...)
	if got, err := parseLimit(message); err != nil || got != 10e6 {
		f.Fatal(got, err)
	}
	options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(5e9))
	if got, err := parseLimit(append((&nl.TcMsg{}).Serialize(), options.Serialize()...)); err != nil || got != 40e9 {
		f.Fatal(got, err)
	}
	f.Add(message)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if bps, err := parseLimit(b); err == nil && (bps < 0 || bps > MaxRate) {
			t.Error(bps)
		}
		_, _, _ = parseLink(b)
	})
}

func TestDiff(t *testing.T) {
	set := newTable(Config{}).publish4
	e := func(key, value string) element { return element{set: set, key: key, value: value, vm: "x"} }
	add, del := diff([]element{e("a", "1"), e("b", "1")}, []element{e("b", "2"), e("a", "1"), e("c", "")})
	if len(add) != 2 || add[0].key != "b" || add[1].key != "c" || len(del) != 1 || del[0].value != "1" || del[0].key != "b" {
		t.Errorf("add %v, remove %v", add, del)
	}
}

// The stub itself answers on loopback only: without its upstreams there is nobody
// to name, and that is said.
func TestResolversBehindTheStub(t *testing.T) {
	dir := t.TempDir()
	conf, upstream := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "upstream.conf")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n, err := New(Config{ResolvConf: conf, SystemdResolv: upstream})
	if err != nil {
		t.Fatal(err)
	}
	write(conf, "nameserver 127.0.0.53\nsearch a.example\n")
	for _, text := range []string{"", "# nobody\n"} {
		if text != "" {
			write(upstream, text)
		}
		if _, _, err := n.readResolvers(); !errors.Is(err, ErrNoResolver) {
			t.Errorf("upstreams %q: %v", text, err)
		}
	}
	const others = "nameserver 198.51.100.1\nnameserver 127.0.0.53\nnameserver 127.0.0.54\nnameserver 198.51.100.2\nsearch a.example\n"
	check := func(host, want string) {
		t.Helper()
		write(conf, host)
		c, r, err := n.readResolvers()
		if err != nil || c.text(r) != want || r.redirect.IsValid() {
			t.Errorf("%q: %q %v %v", host, c.text(r), r.redirect, err)
		}
	}
	check(others, "nameserver 198.51.100.1\nnameserver 198.51.100.2\nsearch a.example\n") // the upstreams are not known
	write(upstream, "nameserver 192.0.2.2\n")
	check(others, "nameserver 198.51.100.1\nnameserver 192.0.2.2\nnameserver 198.51.100.2\nsearch a.example\n")
	check("nameserver 127.0.0.53\nsearch a.example\n", "nameserver 192.0.2.2\nsearch a.example\n")
}
