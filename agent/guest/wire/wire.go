// Package wire is what the agent and cloudflash-init say to each other: one
// message per SOCK_SEQPACKET packet. It is linked into the init of every VM, and
// so imports nothing.
//
// A message is its kind, the sequence number of the request, and fields in a
// fixed order: numbers are little-endian, strings and lists carry their length.
package wire

// Kinds of messages.
const (
	Setup       byte = iota + 1 // build the root file system; once
	Start                       // start a process
	Signal                      // send a signal to a process; sent only by agents from before December 2026
	List                        // which processes run, by id, after the one that is named
	Ping                        // are you there, are you set up
	Acknowledge                 // an exit is stored: forget it
	Subscribe                   // tell every exit not acknowledged, then each new one
	Reply                       // answer to a request, same sequence number
	Exited                      // a process has ended; sequence number 0
)

// MaxMessage is the longest message in bytes.
const MaxMessage = 160 << 10

// MaxList is how many processes an answer to List holds, when there are more.
const MaxList = 500

// MaxOpenFiles is how many descriptors a process of a VM may ask for.
const MaxOpenFiles = 512 << 10

// File descriptors that the init is born with.
const (
	ListenerFD = 3 // listening socket
	JournalFD  = 4 // exits, opened for appending
	SelfFD     = 5 // its own executable
)

// Ready is added to the answer of a Ping when Setup has been done.
const Ready = 1

// Image is the part of a Setup that not every VM has. Its descriptors are /data, the
// binaries, the files, the file system of the device nodes, the VM's slice, and those of the
// part: the image and what is written to it.
const Image = 1

// How a Start gives the process its input and output.
const (
	Files    = 0 // descriptors: scope, stdout, stderr; stdin is /dev/null
	Pipes    = 1 // descriptors: scope, stdout, stderr, stdin
	Terminal = 2 // descriptors: scope; the answer carries the other end of a new pseudo-terminal
)

// Writer builds a message.
type Writer struct{ B []byte }

// Begin starts a message in the buffer.
func (w *Writer) Begin(kind byte, seq uint32) {
	w.B = append(w.B[:0], kind)
	w.Uint32(seq)
}

// Uint32 adds a number.
func (w *Writer) Uint32(v uint32) {
	w.B = append(w.B, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

// Int64 adds a number.
func (w *Writer) Int64(v int64) { w.Uint32(uint32(v)); w.Uint32(uint32(uint64(v) >> 32)) }

// String adds a string.
func (w *Writer) String(s string) { w.Uint32(uint32(len(s))); w.B = append(w.B, s...) }

// Strings adds a list of strings.
func (w *Writer) Strings(all []string) {
	w.Uint32(uint32(len(all)))
	for _, s := range all {
		w.String(s)
	}
}

// Reader takes a message apart. After the first field that is not there, all
// are zero and Bad is true.
type Reader struct {
	B   []byte
	Bad bool
}

// Begin reads the kind and the sequence number.
func (r *Reader) Begin() (kind byte, seq uint32) {
	b := r.take(1)
	if b == nil {
		return 0, 0
	}
	return b[0], r.Uint32()
}

func (r *Reader) take(n int) []byte {
	if r.Bad || n < 0 || n > len(r.B) {
		r.Bad = true
		return nil
	}
	b := r.B[:n]
	r.B = r.B[n:]
	return b
}

// Uint32 reads a number.
func (r *Reader) Uint32() uint32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// Int64 reads a number.
func (r *Reader) Int64() int64 { lo := r.Uint32(); return int64(uint64(r.Uint32())<<32 | uint64(lo)) }

// String reads a string.
func (r *Reader) String() string { return string(r.take(int(r.Uint32()))) }

// Strings reads a list of strings.
func (r *Reader) Strings() []string {
	n := int(r.Uint32())
	if n > len(r.B)/4 { // each takes four bytes at least
		r.Bad = true
		return nil
	}
	all := make([]string, 0, n)
	for range n {
		all = append(all, r.String())
	}
	return all
}

// Exit is how a process ended. Times are nanoseconds since 1970.
type Exit struct {
	ID           string
	Code, Signal uint32
	StartedAt    int64
	FinishedAt   int64
	CPUTime      int64 // nanoseconds, of the process and the children it waited for
	FinishedBoot int64 // nanoseconds of CLOCK_BOOTTIME; 0 from an older init
}

// Put adds an exit to a message.
func (e Exit) Put(w *Writer) {
	w.String(e.ID)
	w.Uint32(e.Code)
	w.Uint32(e.Signal)
	w.Int64(e.StartedAt)
	w.Int64(e.FinishedAt)
	w.Int64(e.CPUTime)
	w.Int64(e.FinishedBoot)
}

// Exit reads an exit from a message.
func (r *Reader) Exit() Exit {
	e := Exit{ID: r.String(), Code: r.Uint32(), Signal: r.Uint32(), StartedAt: r.Int64(), FinishedAt: r.Int64(), CPUTime: r.Int64()}
	if len(r.B) > 0 { // it is the last field of its message
		e.FinishedBoot = r.Int64()
	}
	return e
}

// AppendLine adds the journal's line of an exit: seven fields and a newline.
func (e Exit) AppendLine(b []byte) []byte {
	b = append(b, e.ID...)
	for _, n := range [...]int64{int64(e.Code), int64(e.Signal), e.StartedAt, e.FinishedAt, e.CPUTime, e.FinishedBoot} {
		b = appendInt(append(b, ' '), n)
	}
	return append(b, '\n')
}

func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		b, n = append(b, '-'), -n
	}
	if n >= 10 {
		b = appendInt(b, n/10)
	}
	return append(b, byte('0'+n%10))
}
