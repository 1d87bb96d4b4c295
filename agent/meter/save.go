package meter

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"time"
)

// SaveEvery is how often the history is written unless a Config says otherwise: what a
// killed agent loses at most.
const SaveEvery = 45 * time.Second

// The file is a line and records, each of a length, a checksum (CRC-32C) and as
// many bytes as that; numbers are little-endian. A record is one history. What
// follows one that is cut off or spoilt is not read.
const (
	fileHead  = "cloudflash history 1\n"
	maxRecord = 4 << 20
)

var errRecord = errors.New("malformed record")

// Run writes the history now and then, and once more when ctx ends.
func (m *Meter) Run(ctx context.Context) {
	tick := time.NewTicker(cmp.Or(m.cfg.SaveEvery, SaveEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.save()
			return
		case <-tick.C:
			m.save()
		}
	}
}

func (m *Meter) save() {
	began := time.Now()
	err := m.Save()
	m.Report("history", time.Since(began), err)
}

// Save writes all histories to the file, which is the old or the new one at any
// moment.
func (m *Meter) Save() error {
	if m.cfg.File == "" {
		return nil
	}
	m.saving.Lock()
	defer m.saving.Unlock()
	temporary := m.cfg.File + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(m.write(f), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temporary, m.cfg.File)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}

func (m *Meter) write(w io.Writer) error {
	m.mu.Lock()
	past := maps.Clone(m.past)
	m.mu.Unlock()
	b := bufio.NewWriterSize(w, 1<<16)
	_, _ = b.WriteString(fileHead) // Flush tells
	record := m.hostPast.appendRecord(nil, "", schemaOf(hostSeriesList()))
	writeRecord(b, record)
	schema := schemaOf(vmSeriesList())
	for _, id := range slices.Sorted(maps.Keys(past)) {
		record = past[id].appendRecord(record[:0], id, schema)
		writeRecord(b, record)
	}
	return b.Flush()
}

func writeRecord(b *bufio.Writer, record []byte) {
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(record)))
	binary.LittleEndian.PutUint32(head[4:], checksum(record))
	_, _ = b.Write(head[:]) // Flush tells
	_, _ = b.Write(record)
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// schemaOf tells histories apart that have other series or tiers: those of
// another version are not read.
func schemaOf(all []series) uint32 {
	return checksum(fmt.Append(nil, all, tiers, chunkPoints))
}

// appendRecord writes a history. That of the host has no id.
func (h *history) appendRecord(b []byte, id string, schema uint32) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	b = binary.LittleEndian.AppendUint32(b, schema)
	b = appendBytes(b, []byte(id))
	b = binary.AppendVarint(b, h.last)
	var packed []byte
	for i := range h.rings {
		r := &h.rings[i]
		b = binary.AppendVarint(b, r.slot)
		for _, k := range r.now {
			for _, v := range [...]uint32{math.Float32bits(k.sum), math.Float32bits(k.least), math.Float32bits(k.most), k.n} {
				b = binary.LittleEndian.AppendUint32(b, v)
			}
		}
		packed = packed[:0]
		if r.open >= 0 {
			packed = pack(packed, r.codes, r.width)
		}
		b = binary.AppendVarint(b, r.open)
		b = appendBytes(b, packed)
		for _, c := range r.packed {
			b = binary.AppendVarint(b, c.number)
			b = appendBytes(b, c.bytes)
		}
	}
	return b
}

func appendBytes(b, v []byte) []byte { return append(binary.AppendUvarint(b, uint64(len(v))), v...) }
