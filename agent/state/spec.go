package state

import "fmt"

// Spec is what the user asked for.
type Spec struct {
	CPUs         float64 `json:"cpus" doc:"CPU limit in cores; 1 is one whole core"`
	MemoryBytes  int64   `json:"memory_bytes" doc:"Memory limit in bytes"`
	StorageBytes int64   `json:"storage_bytes" doc:"Storage quota in bytes"`
	BandwidthBPS int64   `json:"bandwidth_bps" doc:"Network bandwidth in bits per second, each direction"`
	GPUs         int     `json:"gpus" doc:"Whole GPUs reserved for the VM"`
	IO           IO      `json:"io" doc:"Block IO limits"`
	PIDs         int64   `json:"pids" doc:"Most processes and threads at one time"`
}

// IO limits block IO. Zero means no limit.
type IO struct {
	ReadBPS   int64 `json:"rbps" required:"false" doc:"Bytes read per second, 0 for no limit"`
	WriteBPS  int64 `json:"wbps" required:"false" doc:"Bytes written per second, 0 for no limit"`
	ReadIOPS  int64 `json:"riops" required:"false" doc:"Read operations per second, 0 for no limit"`
	WriteIOPS int64 `json:"wiops" required:"false" doc:"Write operations per second, 0 for no limit"`
}

// String is the spec on one line.
func (s Spec) String() string {
	text := fmt.Sprintf("%.3g cpus, %d MiB memory, %d MiB storage, %.4g Mbit/s, %d pids",
		s.CPUs, s.MemoryBytes>>20, s.StorageBytes>>20, float64(s.BandwidthBPS)/1e6, s.PIDs)
	if s.GPUs > 0 {
		text += fmt.Sprintf(", %d GPUs", s.GPUs)
	}
	return text
}

// Set changes the amount of one resource that is scaled, by its name in JSON.
// Other names change nothing.
func (s *Spec) Set(resource string, v float64) {
	switch resource {
	case "cpus":
		s.CPUs = v
	case "memory_bytes":
		s.MemoryBytes = int64(v)
	case "storage_bytes":
		s.StorageBytes = int64(v)
	case "bandwidth_bps":
		s.BandwidthBPS = int64(v)
	case "rbps":
		s.IO.ReadBPS = int64(v)
	case "wbps":
		s.IO.WriteBPS = int64(v)
	case "riops":
		s.IO.ReadIOPS = int64(v)
	case "wiops":
		s.IO.WriteIOPS = int64(v)
	}
}
