package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/quantity"
	"github.com/jedib0t/go-pretty/v6/text"
)

// topView is the screen of top: what is known, how it is looked at, and the
// lines that come of it. It does no input or output.
type topView struct {
	picture
	rates      map[string]rates // by VM, since the picture before
	rows, cols int
	onlyVMs    bool
	colour     bool

	sort     byte // a key of topSorts
	reverse  bool
	ended    bool // show cloudlets that have ended
	paused   bool
	focus    int    // 0 VMs, 1 cloudlets
	offset   [2]int // first row shown
	trouble  string // why the picture is old
	problems int    // pictures in a row that did not come
}

// rates are per second.
type rates struct{ received, sent, read, written, throttled float64 }

// topSorts are the orders, by their keys.
func topSorts() map[byte]string {
	return map[byte]string{'c': "CPU", 'm': "memory", 'n': "network", 'd': "disk", 'p': "processes", 'a': "name"}
}

// take brings a new picture.
func (v *topView) take(p picture) {
	now := make(map[string]rates, len(p.VMs))
	before := make(map[string]agent.Usage, len(v.VMs))
	for _, vm := range v.VMs {
		before[vm.ID] = vm.Usage
	}
	for _, vm := range p.VMs {
		old, u := before[vm.ID], vm.Usage
		t := u.At.Sub(old.At).Seconds()
		if old.At.IsZero() || t <= 0 {
			now[vm.ID] = v.rates[vm.ID] // not sampled since
			continue
		}
		per := func(to, from int64) float64 { return float64(max(to-from, 0)) / t }
		now[vm.ID] = rates{8 * per(u.ReceivedBytes, old.ReceivedBytes), 8 * per(u.SentBytes, old.SentBytes),
			per(u.ReadBytes, old.ReadBytes), per(u.WrittenBytes, old.WrittenBytes),
			float64(max(u.ThrottledPeriods-old.ThrottledPeriods, 0)) / float64(max(u.Periods-old.Periods, 1))}
	}
	v.picture, v.rates, v.trouble, v.problems = p, now, "", 0
}

// miss says that a picture did not come.
func (v *topView) miss(err error) {
	v.problems++
	v.trouble, _, _ = strings.Cut(err.Error(), "\n")
}

// key acts on a key and reports whether it ends the program.
func (v *topView) key(k string) (quit bool) {
	page := max(v.rows/2-2, 1)
	switch k {
	case "q", "\x03", "\x04":
		return true
	case "r":
		v.reverse = !v.reverse
	case "e":
		v.ended = !v.ended
	case " ":
		v.paused = !v.paused
	case "\t":
		if !v.onlyVMs {
			v.focus = 1 - v.focus
		}
	case "\x1b[A", "\x1bOA", "k":
		v.offset[v.focus]--
	case "\x1b[B", "\x1bOB", "j":
		v.offset[v.focus]++
	case "\x1b[5~":
		v.offset[v.focus] -= page
	case "\x1b[6~":
		v.offset[v.focus] += page
	case "g", "\x1b[H":
		v.offset[v.focus] = 0
	default:
		if len(k) == 1 && topSorts()[k[0]] != "" {
			v.sort, v.offset = k[0], [2]int{}
		}
	}
	return false
}

// lines is the screen, at most rows lines of at most cols columns.
func (v *topView) lines() []string {
	head := v.header()
	room := max(v.rows-len(head)-1, 0)
	vms, cloudlets := v.sortedVMs(), v.sortedCloudlets()
	forVMs := room
	if !v.onlyVMs {
		forVMs = min(len(vms)+1, max(room/2, room-len(cloudlets)-2))
	}
	all := append(head, rowsOf(v, 0, "VMs", vms, v.vmColumns(), forVMs)...)
	if rest := room - forVMs - 1; !v.onlyVMs && rest > 0 {
		all = append(all, "")
		all = append(all, rowsOf(v, 1, "CLOUDLETS", cloudlets, topCloudletColumns(), rest)...)
	}
	for len(all) < v.rows-1 {
		all = append(all, "")
	}
	all = append(all[:max(min(len(all), v.rows-1), 0)], v.footer())
	return all[:min(len(all), v.rows)]
}

func (v *topView) header() []string {
	h := v.Host
	used := float64(h.Usage.MemoryUsedBytes) / float64(max(h.MemoryBytes, 1))
	first := fmt.Sprintf("%s  Linux %s  up %s  load %.2f  %d VMs  %d running, %d queued", clean(h.Name), clean(h.Kernel), span(time.Duration(h.UptimeSeconds)*time.Second),
		h.Usage.Load1, h.VMs, h.CloudletsByState[agent.CloudletRunning], h.CloudletsByState[agent.CloudletQueued])
	width := min(max(v.cols/2-30, 10), 40)
	return []string{v.fit(first),
		v.fit(fmt.Sprintf("CPU %s %5.1f %% of %d   agent %s, %s", v.bar(h.Usage.CPURatio, width), h.Usage.CPURatio*100, h.CPUs, quantity.FormatBytes(h.Usage.AgentMemoryBytes), clean(h.Version))),
		v.fit(fmt.Sprintf("MEM %s %5.1f %% of %s   storage %s of %s", v.bar(used, width), used*100, quantity.FormatBytes(h.MemoryBytes),
			quantity.FormatBytes(h.Usage.StorageUsedBytes), quantity.FormatBytes(h.StorageBytes))),
		""}
}

func span(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}

func (v *topView) bar(ratio float64, width int) string {
	n := min(max(int(ratio*float64(width)+0.5), 0), width)
	return "[" + v.paint(level(ratio), strings.Repeat("|", n)) + strings.Repeat(" ", width-n) + "]"
}

// level is a colour for how full something is. The number is always beside it.
func level(ratio float64) string {
	switch {
	case ratio >= 0.9:
		return "31"
	case ratio >= 0.7:
		return "33"
	}
	return "32"
}

func (v *topView) paint(colour, s string) string {
	if !v.colour || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

func (v *topView) footer() string {
	if v.trouble != "" {
		return v.fit(v.paint("31", clean(v.trouble)) + fmt.Sprintf(" (tried %d times; what is shown is old)", v.problems))
	}
	order := topSorts()[v.sort]
	if v.reverse {
		order += " reversed"
	}
	if v.paused {
		order += ", PAUSED"
	}
	return v.fit("by " + order + "   c m n d p a sort  r reverse  Tab arrows move  e ended  Space pause  q quit")
}

// fit cuts a line to the width of the screen; colours take no room.
func (v *topView) fit(s string) string { return text.Trim(s, v.cols) }

// topColumn is a column of fixed width; what does not fit the screen is left out,
// from the right.
type topColumn[T any] struct {
	title string
	width int // of the first, at least
	left  bool
	cell  func(T) string
}

// rowsOf is a title line and the rows that fit into room lines.
func rowsOf[T any](v *topView, index int, title string, all []T, columns []topColumn[T], room int) []string {
	if room < 1 {
		return nil
	}
	fixed, shown := 0, 0
	for i, c := range columns {
		if i > 0 && fixed+c.width+1+columns[0].width > v.cols {
			break
		}
		if i > 0 {
			fixed += c.width + 1
		}
		shown++
	}
	columns = slices.Clone(columns[:shown])
	columns[0].width = max(min(v.cols-fixed, 40), 1)
	row := func(cell func(topColumn[T]) string) string {
		var b strings.Builder
		for i, c := range columns {
			if i > 0 {
				b.WriteByte(' ')
			}
			s := text.Trim(clean(cell(c)), c.width)
			pad := strings.Repeat(" ", max(c.width-text.StringWidthWithoutEscSequences(s), 0))
			if c.left {
				b.WriteString(s + pad)
			} else {
				b.WriteString(pad + s)
			}
		}
		return b.String()
	}
	rows := room - 1
	v.offset[index] = max(min(v.offset[index], len(all)-rows), 0)
	end := min(v.offset[index]+rows, len(all))
	first := row(func(c topColumn[T]) string { return c.title })
	if more := len(all) - end + v.offset[index]; more > 0 {
		first = text.Trim(fmt.Sprintf("%s  (+%d)", strings.TrimRight(first, " "), more), v.cols)
	}
	if v.focus == index && v.colour {
		first = v.paint("7", first)
	}
	lines := []string{first}
	for _, one := range all[v.offset[index]:end] {
		lines = append(lines, row(func(c topColumn[T]) string { return c.cell(one) }))
	}
	return lines
}

func (v *topView) vmColumns() []topColumn[agent.VM] {
	rate := func(get func(rates) float64, format func(int64) string) func(agent.VM) string {
		return func(vm agent.VM) string { return format(int64(get(v.rates[vm.ID]))) }
	}
	return []topColumn[agent.VM]{
		{"VM", 12, true, func(vm agent.VM) string { return vm.Name }},
		{"STATE", 9, true, topState},
		{"CPU", 6, false, func(vm agent.VM) string { return fmt.Sprintf("%.2f", vm.Usage.CPUs) }},
		{"LIMIT", 6, false, func(vm agent.VM) string { return cpus(vm.Limits.CPUs) }},
		{"MEM", 9, false, func(vm agent.VM) string { return quantity.FormatBytes(vm.Usage.MemoryBytes) }},
		{"LIMIT", 9, false, func(vm agent.VM) string { return bytesOr(vm.Limits.MemoryBytes, "max") }},
		{"RX", 11, false, rate(func(r rates) float64 { return r.received }, quantity.FormatBits)},
		{"TX", 11, false, rate(func(r rates) float64 { return r.sent }, quantity.FormatBits)},
		{"READ/s", 9, false, rate(func(r rates) float64 { return r.read }, quantity.FormatBytes)},
		{"WRITE/s", 9, false, rate(func(r rates) float64 { return r.written }, quantity.FormatBytes)},
		{"THR%", 5, false, func(vm agent.VM) string { return fmt.Sprintf("%.0f", 100*v.rates[vm.ID].throttled) }},
		{"PIDS", 5, false, func(vm agent.VM) string { return fmt.Sprint(vm.Usage.PIDs) }},
		{"CL", 3, false, func(vm agent.VM) string { return fmt.Sprint(vm.Cloudlets) }},
		{"WSET", 9, false, func(vm agent.VM) string { return quantity.FormatBytes(vm.Usage.WorkingSetBytes) }},
		{"CPUW%", 5, false, func(vm agent.VM) string { return fmt.Sprintf("%.0f", 100*vm.Usage.CPUPressure) }},
		{"MEMW%", 5, false, func(vm agent.VM) string { return fmt.Sprintf("%.0f", 100*vm.Usage.MemoryPressure) }},
		{"IOW%", 5, false, func(vm agent.VM) string { return fmt.Sprintf("%.0f", 100*vm.Usage.IOPressure) }},
	}
}

func topCloudletColumns() []topColumn[agent.Cloudlet] {
	return []topColumn[agent.Cloudlet]{
		{"CLOUDLET", 12, true, func(c agent.Cloudlet) string { return c.Name }},
		{"STATE", 9, true, func(c agent.Cloudlet) string { return string(c.State) }},
		{"VM", 12, true, func(c agent.Cloudlet) string { return c.VMName }},
		{"SLA", 3, false, func(c agent.Cloudlet) string { return fmt.Sprint(c.SLA) }},
		{"CPU", 6, false, func(c agent.Cloudlet) string { return fmt.Sprintf("%.2f", c.Usage.CPUs) }},
		{"TIME", 9, false, func(c agent.Cloudlet) string { return fmt.Sprintf("%.1fs", c.Usage.CPUSeconds) }},
		{"MEM", 9, false, func(c agent.Cloudlet) string { return quantity.FormatBytes(c.Usage.MemoryBytes) }},
		{"ELAPSED", 9, false, elapsed},
		{"DEADLINE", 12, true, deadlineText},
		{"PIDS", 5, false, func(c agent.Cloudlet) string { return fmt.Sprint(c.Usage.PIDs) }},
		{"COMMAND", 30, true, func(c agent.Cloudlet) string { return strings.Join(c.Argv, " ") }},
	}
}

func (v *topView) sortedVMs() []agent.VM {
	all := slices.Clone(v.VMs)
	slices.SortStableFunc(all, func(x, y agent.VM) int {
		by, r, s := 0, v.rates[x.ID], v.rates[y.ID]
		switch v.sort {
		case 'n':
			by = cmp.Compare(s.received+s.sent, r.received+r.sent)
		case 'd':
			by = cmp.Compare(s.read+s.written, r.read+r.written)
		default:
			by = v.byUsage(x.Usage, y.Usage)
		}
		return v.turned(cmp.Or(by, cmp.Compare(x.Name, y.Name)))
	})
	return all
}

func (v *topView) sortedCloudlets() []agent.Cloudlet {
	all := slices.DeleteFunc(slices.Clone(v.Cloudlets), func(c agent.Cloudlet) bool { return c.State.Final() && !v.ended })
	slices.SortStableFunc(all, func(x, y agent.Cloudlet) int {
		return v.turned(cmp.Or(v.byUsage(x.Usage, y.Usage), cmp.Compare(x.Name, y.Name)))
	})
	return all
}

// byUsage puts the greater first.
func (v *topView) byUsage(x, y agent.Usage) int {
	switch v.sort {
	case 'c':
		return cmp.Compare(y.CPUs, x.CPUs)
	case 'm':
		return cmp.Compare(y.MemoryBytes, x.MemoryBytes)
	case 'p':
		return cmp.Compare(y.PIDs, x.PIDs)
	}
	return 0
}

func (v *topView) turned(order int) int {
	if v.reverse {
		return -order
	}
	return order
}
