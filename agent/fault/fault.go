// Package fault is how the agent says no: an Error tells a person what is wrong,
// where, and what to do about it, and a program what kind of refusal it is.
package fault

import (
	"errors"
	"fmt"
	"strings"
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

	// ErrFull means that what was asked for cannot be stored: there is no room for it.
	ErrFull = errors.New("the disk of the state directory is full")
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

// Refuse makes an Error with a formatted detail.
func Refuse(kind error, code, hint, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Hint: hint, Detail: fmt.Sprintf(format, args...)}
}

// List collects what is wrong with a request, so that one answer names it all.
type List struct{ fields []Field }

// mostFields are enough to act on: a request may have thousands.
const mostFields = 20

// Add tells of one field. Lo and hi are what it may be, nil where that is not a range.
func (l *List) Add(pointer string, lo, hi any, format string, args ...any) {
	if len(l.fields) == mostFields {
		return
	}
	l.fields = append(l.fields, Field{Pointer: pointer, Min: lo, Max: hi, Detail: fmt.Sprintf(format, args...)})
}

// Empty reports whether nothing is wrong.
func (l *List) Empty() bool { return len(l.fields) == 0 }

// Err is all of it as an Error of kind ErrInvalid, or nil.
func (l *List) Err(code string) error {
	if l.Empty() {
		return nil
	}
	details := make([]string, len(l.fields))
	for i, f := range l.fields {
		details[i] = strings.TrimLeft(f.Pointer, "/?") + " " + f.Detail
	}
	return &Error{Kind: ErrInvalid, Code: code, Detail: strings.Join(details, "; "), Fields: l.fields}
}

// Within adds a field that is less than lo or more than hi.
func Within[T int | int64 | float64](l *List, pointer string, v, lo, hi T) {
	if v != v || v < lo || v > hi { // v != v: NaN
		l.Add(pointer, lo, hi, "must be %v to %v, not %v", lo, hi, v)
	}
}

// Quote shows a value of any length and content on one line.
func Quote(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q… (%d bytes)", s[:80], len(s))
	}
	return fmt.Sprintf("%q", s)
}
