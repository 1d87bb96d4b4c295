package api

import (
	"context"
	"encoding/binary"
	"math"
	"mime"
	"net/http"
	"strings"
	"time"

	"cloudflash/agent/pages"

	"github.com/danielgtaylor/huma/v2"
)

type memoryOutput struct{ Body pages.Memory }

func (s *server) showMemory(context.Context, *struct{}) (*memoryOutput, error) {
	m, err := s.parts.Memory.Look()
	return &memoryOutput{Body: m}, err
}

type memoryMapInput struct {
	From   int64  `query:"from" default:"0" doc:"First page frame"`
	Span   int64  `query:"span" default:"0" doc:"Page frames; 0 for all from there on"`
	Cells  int    `query:"cells" default:"1024" doc:"Most cells to answer with, 1 to 4096"`
	Owner  string `query:"owner" maxLength:"128" doc:"A VM, host or deleted, whose pages each cell counts apart"`
	Accept string `header:"Accept" doc:"application/octet-stream for fixed records instead of JSON"`
}

// showMemoryMap answers in JSON, or in records of fixed size.
func (s *server) showMemoryMap(_ context.Context, in *memoryMapInput) (*huma.StreamResponse, error) {
	m, err := s.parts.Memory.Map(in.From, in.Span, in.Cells, in.Owner)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Cache-Control", "no-store")
		if wantsBinary(in.Accept) {
			hc.SetHeader("Content-Type", "application/octet-stream")
			hc.SetStatus(http.StatusOK)
			_, _ = hc.BodyWriter().Write(encodeMap(m)) // the client is gone: nobody to tell
			return
		}
		hc.SetHeader("Content-Type", "application/json")
		hc.SetStatus(http.StatusOK)
		_ = s.marshal(hc.BodyWriter(), m)
	}}, nil
}

func wantsBinary(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		switch kind, _, _ := mime.ParseMediaType(part); kind {
		case "application/octet-stream":
			return true
		case "application/json", "*/*":
			return false
		}
	}
	return false
}

// The binary map is little-endian: a header of 48 bytes, one record of 56 bytes for
// each cell, then the names of owners.
//
//	header  0 "CFM1"            4 u32 number of cells   8 u32 bytes of a record  12 u32 bytes of a page
//	       16 u64 from         24 u64 pages per cell   32 f64 at, Unix seconds  40 u32 number of owners  44 u32 0
//	record  0 u32 free          4 u32 used              8 u32 fragmented         12 u32 absent
//	       16 u32 uninitialised 20 u32 unknown         24 u32 unmovable         28 u32 largest free run
//	       32 u32 owned        36 f32 age in seconds   40 i16 node
//	       42 u16 and 44 u32 the first owner and its pages, 48 u16 and 50 u32 the second; 54 u16 0
//	names   u16 length and UTF-8 of each owner; records name them by 1 + their place, 0 is none
//
// A cell of more than 2^32-1 pages, 16 TiB, has its counts cut at that.
const (
	mapHeader = 48
	mapRecord = 56
)

func encodeMap(m pages.MemoryMap) []byte {
	b := make([]byte, mapHeader+mapRecord*len(m.Cells))
	le := binary.LittleEndian
	copy(b, "CFM1")
	le.PutUint32(b[4:], uint32(len(m.Cells)))
	le.PutUint32(b[8:], mapRecord)
	le.PutUint32(b[12:], uint32(m.PageSize))
	le.PutUint64(b[16:], uint64(m.From))
	le.PutUint64(b[24:], uint64(m.PagesPerCell))
	le.PutUint64(b[32:], math.Float64bits(float64(m.At.UnixNano())/float64(time.Second)))
	owners, names := map[string]uint16{}, []byte(nil)
	number := func(owner string) uint16 {
		n, ok := owners[owner]
		if !ok {
			n = uint16(len(owners) + 1) // of at most two for each of 4,096 cells
			owners[owner] = n
			names = le.AppendUint16(names, uint16(len(owner)))
			names = append(names, owner...)
		}
		return n
	}
	for i, c := range m.Cells {
		encodeCell(b[mapHeader+i*mapRecord:], c, number)
	}
	le.PutUint32(b[40:], uint32(len(owners)))
	return append(b, names...)
}

func encodeCell(b []byte, c pages.MemoryCell, number func(string) uint16) {
	le := binary.LittleEndian
	for i, v := range []int64{c.Free, c.Used, c.Fragmented, c.Absent, c.Uninitialised, c.Unknown, c.Unmovable, c.LargestFreeRun, c.Owned} {
		le.PutUint32(b[4*i:], uint32(min(v, math.MaxUint32)))
	}
	le.PutUint32(b[36:], math.Float32bits(float32(c.AgeSeconds)))
	le.PutUint16(b[40:], uint16(int16(c.Node)))
	for i, o := range c.Owners[:min(len(c.Owners), 2)] {
		le.PutUint16(b[42+6*i:], number(o.Owner))
		le.PutUint32(b[44+6*i:], uint32(min(o.Pages, math.MaxUint32)))
	}
}

// memoryOwners is who has pages.
type memoryOwners struct {
	At     time.Time           `json:"at"`
	Owners []pages.MemoryOwner `json:"owners" nullable:"false"`
}

type memoryOwnersOutput struct{ Body memoryOwners }

func (s *server) listMemoryOwners(context.Context, *struct{}) (*memoryOwnersOutput, error) {
	owners, at, err := s.parts.Memory.Owners()
	return &memoryOwnersOutput{Body: memoryOwners{at, owners}}, err
}

type memoryProcesses struct {
	Processes []pages.MemoryProcess `json:"processes" nullable:"false"`
}

type memoryProcessesOutput struct{ Body memoryProcesses }

func (s *server) listMemoryProcesses(_ context.Context, in *Target) (*memoryProcessesOutput, error) {
	all, err := s.parts.Memory.Processes(in.Ref)
	return &memoryProcessesOutput{Body: memoryProcesses{all}}, err
}

type memoryProcessInput struct {
	Target
	PID int `path:"pid" minimum:"1" maximum:"4194304" doc:"On the host"`
}

type memoryProcessOutput struct{ Body pages.MemoryProcess }

func (s *server) showMemoryProcess(ctx context.Context, in *memoryProcessInput) (*memoryProcessOutput, error) {
	p, err := s.parts.Memory.Mappings(ctx, in.Ref, in.PID)
	return &memoryProcessOutput{Body: p}, err
}

func (s *server) scanMemory(context.Context, *struct{}) (*operationOutput, error) {
	op, err := s.parts.Memory.Scan()
	if err != nil {
		return nil, err
	}
	return &operationOutput{Location: base + "/operations/" + op.ID, Body: op}, nil
}

func (s *server) cancelMemoryScan(context.Context, *struct{}) (*struct{}, error) {
	return nil, s.parts.Memory.CancelScan()
}
