package state

import (
	"crypto/rand"
	"encoding/hex"
)

// NewID makes the id of a new record: ten hexadecimal digits, at random.
func NewID() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}
