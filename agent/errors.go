package agent

import (
	"errors"
	"fmt"

	"cloudflash/agent/state"
)

// Sentinels the API turns into status codes and the CLI into exit codes.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
	ErrConflict = errors.New("conflict")
	ErrCapacity = errors.New("insufficient capacity")
	ErrInvalid  = errors.New("invalid")
	ErrAuth     = errors.New("not authorised")
	ErrExpired  = errors.New("history gone")
	ErrNotYet   = errors.New("not yet")

	ErrPrecondition = errors.New("precondition failed")

	ErrUnsupported = errors.New("not supported by this host")

	// ErrFull means that the disk of the state directory has no room for what was asked
	// for to be stored.
	ErrFull = state.ErrFull
)

// Error is a refusal a person can act on. It wraps one of the sentinels.
type Error struct {
	Kind   error   // one of the sentinels
	Code   string  // machine word, such as out_of_range, name_taken, insufficient_memory
	Detail string  // what is wrong, naming the field, the value and the limit
	Hint   string  // the way out, may be empty
	Fields []Field // offending fields, may be empty
}

// Field is one offending field of a request.
type Field struct {
	Pointer string // RFC 6901, such as /memory_bytes
	Detail  string
	Min     any // nil when there is none
	Max     any
}

func (e *Error) Error() string { return e.Detail }

// Unwrap makes errors.Is find the sentinel.
func (e *Error) Unwrap() error { return e.Kind }

// refuse makes an Error with a formatted detail.
func refuse(kind error, code, hint, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Hint: hint, Detail: fmt.Sprintf(format, args...)}
}
