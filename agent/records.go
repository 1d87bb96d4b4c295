package agent

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"cloudflash/agent/store"
)

// vmRecord is a VM's stored intent. What the kernel knows is not stored.
type vmRecord struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	State     VMState           `json:"state"`
	Reason    string            `json:"reason,omitempty"`
	Image     string            `json:"image"`
	Labels    map[string]string `json:"labels,omitempty"`
	Spec      Spec              `json:"spec"`
	Network   Network           `json:"network"`
	GPUs      []string          `json:"gpus,omitempty"` // ids of its units
	Slot      int               `json:"slot"`           // its id range, see uidBase
	CreatedAt time.Time         `json:"created_at"`
	Thrashed  int64             `json:"thrashed,omitempty"` // cloudlets killed because it did
	Advice    *AppliedAdvice    `json:"advice,omitempty"`   // taken last, for undoing it
	Own       ownPolicy         `json:"policy,omitzero"`
	Keep      bool              `json:"keep,omitempty"` // it is not deleted when idle
	// Sized are the limits that autoscaling has set in place of the spec's, by resource,
	// and memory_high_bytes. It is never changed in place: records are copied.
	Sized map[string]float64 `json:"sized,omitempty"`
}

// cloudletRecord is a cloudlet and what the agent has decided about it.
type cloudletRecord struct {
	Cloudlet
	// Stop is why the agent is ending it: a constant below, or empty.
	Stop string `json:"stop,omitempty"`
	// Times on CLOCK_BOOTTIME, for what must happen within a time (see moment), and the id of the boot
	// that they are of. Stopping is when SIGTERM was sent; cgroup.kill follows a grace later.
	Boot          string        `json:"boot,omitempty"`
	SubmittedBoot time.Duration `json:"submitted_boot,omitempty"`
	StartedBoot   time.Duration `json:"started_boot,omitempty"`
	StoppingBoot  time.Duration `json:"stopping_boot,omitempty"`
	DeadlineBoot  time.Duration `json:"deadline_boot,omitempty"` // means something where there is a DeadlineAt
	// Pinned says that the user, not the scheduler, chose the VM.
	Pinned bool `json:"pinned,omitempty"`
	// Duration is how long the built-in burn runs when Argv is empty.
	Duration float64 `json:"duration_seconds,omitempty"`
}

// Reasons the agent ends a cloudlet for.
const (
	stopCancel   = "cancel"
	stopDeadline = "deadline"
	stopDelete   = "delete" // of its VM
	stopOOM      = "oom"    // its VM thrashed
)

// Each VM has 65,536 user ids of its own. They begin above the range that
// systemd-nspawn uses (0x00080000-0x6FFFFFFF) and below 2^31.
const (
	uidFirst = 0x70000000
	uidCount = 65536
	maxSlots = 4094
)

func (r vmRecord) uidBase() uint32 { return uidFirst + uint32(r.Slot)*uidCount }

func newID() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

func putVM(r vmRecord) store.Change { return store.Put(store.VMs, r.ID, r) }

func putCloudlet(r cloudletRecord) store.Change { return store.Put(store.Cloudlets, r.ID, r) }
