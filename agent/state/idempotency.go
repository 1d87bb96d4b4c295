package state

import "time"

// Made is what a request has made whose client gave it a key, so that the same request
// can be told from a second one.
type Made struct {
	ID     string        `json:"id"`      // SHA-256 of the kind and the key, in hexadecimal
	Body   string        `json:"body"`    // SHA-256 of what was asked for
	Target string        `json:"target"`  // id of the VM or cloudlet
	At     time.Time     `json:"at"`      // shown
	Seq    uint64        `json:"seq"`     // in the order in which they were stored
	Boot   string        `json:"boot"`    // id of the boot that AtBoot is of
	AtBoot time.Duration `json:"at_boot"` // since that boot
}
