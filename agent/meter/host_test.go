package meter

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is a directory that stands for / of a host.
type machine string

func (m machine) write(t testing.TB, path, text string) {
	t.Helper()
	path = filepath.Join(string(m), path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (m machine) link(t testing.TB, name, rx, tx string) {
	m.write(t, "sys/class/net/"+name+"/statistics/rx_bytes", rx+"\n")
	m.write(t, "sys/class/net/"+name+"/statistics/tx_bytes", tx+"\n")
}

const psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n"

func newMachine(t testing.TB) machine {
	m := machine(t.TempDir())
	m.write(t, "proc/stat", "cpu  100 0 0 900 0 0 0 0 50 0\ncpu0 100 0 0 900 0 0 0 0 0 0\nintr 1\n")
	m.write(t, "proc/meminfo", "MemTotal:        1000 kB\nMemFree:          100 kB\nMemAvailable:     600 kB\nSwapCached: 0 kB\nSwapTotal:  500 kB\nSwapFree:   400 kB\n")
	m.write(t, "proc/loadavg", "1.25 0.50 0.10 1/100 4242\n")
	m.write(t, "proc/self/statm", "5000 100 50 1 0 80 0\n")
	for _, name := range []string{"cpu", "memory", "io"} {
		m.write(t, "proc/pressure/"+name, psi)
	}
	for _, name := range []string{"lo", "cf0", "vcf1", "eth0", "eth1"} {
		m.link(t, name, "1000", "500")
	}
	m.write(t, "sys/class/net/eth0/device/vendor", "")
	m.write(t, "sys/class/net/eth1/device/vendor", "")
	m.write(t, "sys/class/net/cf0/bridge/bridge_id", "")
	m.write(t, "sys/class/net/vcf1/brport/state", "")
	for _, name := range []string{"vda", "loop0", "dm-0"} {
		m.write(t, "sys/block/"+name+"/stat", "      10        0      100       5       20       0      200      10        0       15       15\n")
	}
	m.write(t, "sys/block/vda/device/vendor", "")
	return m
}

func TestHostSample(t *testing.T) {
	root := newMachine(t)
	h := newHostProbe(t.TempDir(), string(root))
	defer h.close()
	now := time.Now()
	s, err := h.sample(now)
	if err != nil {
		t.Fatal(err)
	}
	if s.CPURatio != 0 || s.Load1 != 1.25 || s.MemoryUsed != 400<<10 || s.MemoryAvailable != 600<<10 || s.SwapUsed != 100<<10 ||
		s.Network != (Flow{2000, 1000}) || s.Disk != (Flow{100 * 512, 200 * 512}) ||
		s.CPUWaiting != 2*time.Second || s.MemoryStalled != time.Second || s.IOStalled != time.Second ||
		s.AgentMemory != 100*int64(os.Getpagesize()) || s.AgentGoroutines < 1 || s.AgentDescriptors < 3 || s.AgentCPU <= 0 {
		t.Errorf("%+v", s)
	}
	h.last = s
	root.write(t, "proc/stat", "cpu  105 0 0 900 5 0 0 0 50 0\n")
	root.link(t, "eth0", "5000", "500")
	root.link(t, "eth1", "10", "500") // its driver was loaded again
	next, err := h.sample(now.Add(time.Second))
	if err != nil || next.CPURatio != 0.5 || next.Network != (Flow{6010, 1000}) {
		t.Errorf("%+v %v", next, err)
	}
	var v [hostSeries]float64
	next.values(&s, HostGiven{VMs: 3, Fragmentation: 0.5}, true, &v)
	if v[hostReceived] != 8*4010 || v[hostVMs] != 3 || v[hostFragmentation] != 0.5 || v[hostCPUPressure] != 0 || v[hostMemory] != 400<<10 {
		t.Errorf("%v", v)
	}
	next.values(&s, HostGiven{}, false, &v)
	if !math.IsNaN(v[hostIOPressure]) {
		t.Errorf("without PSI: %v", v[hostIOPressure])
	}
}

// A host whose links have no hardware, such as a guest's, counts what is neither
// loopback nor part of a bridge.
func TestLinksWithoutHardware(t *testing.T) {
	root := newMachine(t)
	for _, name := range []string{"eth0", "eth1"} {
		if err := os.RemoveAll(filepath.Join(string(root), "sys/class/net", name, "device")); err != nil {
			t.Fatal(err)
		}
	}
	h := newHostProbe(t.TempDir(), string(root))
	links, err := h.ownLinks()
	if err != nil || len(links) != 2 || !strings.HasSuffix(links[0], "eth0") || !strings.HasSuffix(links[1], "eth1") {
		t.Errorf("%v %v", links, err)
	}
}

// A device that goes leaves what it has counted; one that comes is found.
func TestDevicesComeAndGo(t *testing.T) {
	root := newMachine(t)
	h := newHostProbe(t.TempDir(), string(root))
	defer h.close()
	now := time.Now()
	if f, err := h.network.sum(now); err != nil || f.In != 2000 {
		t.Fatal(f, err)
	}
	if err := os.RemoveAll(filepath.Join(string(root), "sys/class/net/eth1")); err != nil {
		t.Fatal(err)
	}
	root.link(t, "eth0", "1500", "500")
	root.link(t, "eth2", "70", "0")
	root.write(t, "sys/class/net/eth2/device/vendor", "")
	if f, err := h.network.sum(now.Add(listEvery)); err != nil || f != (Flow{2570, 1000}) || len(h.network.all) != 2 {
		t.Errorf("%+v of %d links, %v", f, len(h.network.all), err)
	}
}

func TestHostWithoutPSI(t *testing.T) {
	root := newMachine(t)
	if err := os.RemoveAll(filepath.Join(string(root), "proc/pressure")); err != nil {
		t.Fatal(err)
	}
	h := newHostProbe(t.TempDir(), string(root))
	defer h.close()
	s, err := h.sample(time.Now())
	if err != nil || h.noPressure == nil || s.CPUWaiting != 0 {
		t.Errorf("%v, %v", err, h.noPressure)
	}
}

func TestHostFilesThatMakeNoSense(t *testing.T) {
	for path, text := range map[string]string{"proc/stat": "cpu  x\n", "proc/meminfo": "MemTotal: 1 kB\n", "proc/loadavg": "", "proc/self/statm": "1",
		"sys/class/net/eth0/statistics/rx_bytes": "many\n", "sys/block/vda/stat": "1 2 3\n"} {
		root := newMachine(t)
		root.write(t, path, text)
		h := newHostProbe(t.TempDir(), string(root))
		if _, err := h.sample(time.Now()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		h.close()
	}
}

func TestHostOfThisMachine(t *testing.T) {
	m := New(Config{StateDir: t.TempDir()})
	defer m.Close()
	m.Pass(time.Now())
	s, c := m.Host(), m.Collectors()
	if s.MemoryUsed <= 0 || s.MemoryAvailable <= 0 || s.AgentMemory <= 0 || s.AgentDescriptors < 3 || s.StorageUsed <= 0 || !c["host"].OK || !c["storage"].OK || !c["vms"].OK {
		t.Errorf("%+v %+v", s, c)
	}
	if w := m.HostWindow(time.Now(), time.Minute, []string{"memory_used_bytes", "agent_memory_bytes"}); len(w.Series) != 2 || !(w.Series[0].Avg[59] > 0) {
		t.Errorf("%+v", w)
	}
}

func TestHostSampleAllocatesHardlyAnything(t *testing.T) {
	h := newHostProbe(t.TempDir(), string(newMachine(t)))
	defer h.close()
	now := time.Now()
	read := func() {
		s, err := h.sample(now)
		if err != nil {
			t.Fatal(err)
		}
		h.last = s
	}
	read()
	if n := testing.AllocsPerRun(100, read); n > 1 { // the name of /proc/self/fd
		t.Errorf("%v allocations", n)
	}
}
