package meter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// Load reads what an earlier agent has saved. It is called before anything is
// metered. A file that is not there is fine; of one that is spoilt, what comes
// before that is kept and an error says so.
func (m *Meter) Load() error {
	if m.cfg.File == "" {
		return nil
	}
	f, err := os.Open(m.cfg.File)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.read(f); err != nil {
		return fmt.Errorf("read %s: %w", m.cfg.File, err)
	}
	return nil
}

func (m *Meter) read(r io.Reader) error {
	b := bufio.NewReaderSize(r, 1<<16)
	head := make([]byte, len(fileHead))
	if _, err := io.ReadFull(b, head); err != nil || string(head) != fileHead {
		return errors.New("not a history")
	}
	hostSchema, vmSchema := schemaOf(hostSeriesList()), schemaOf(vmSeriesList())
	for {
		record, err := readRecord(b)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		schema, id, err := recordHead(&record)
		if err != nil {
			return err
		}
		h := newHistory(vmSeries)
		if id == "" {
			h = newHistory(hostSeries)
		}
		switch {
		case id == "" && schema == hostSchema:
			if err := h.parse(record); err != nil {
				return err
			}
			m.hostPast = h
		case id != "" && schema == vmSchema:
			if err := h.parse(record); err != nil {
				return err
			}
			m.mu.Lock()
			m.past[id] = h
			m.mu.Unlock()
		}
	}
}

// readRecord returns io.EOF only between two records.
func readRecord(b *bufio.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(b, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxRecord {
		return nil, errRecord
	}
	record := make([]byte, n)
	if _, err := io.ReadFull(b, record); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if checksum(record) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, errRecord
	}
	return record, nil
}

func recordHead(b *[]byte) (schema uint32, id string, err error) {
	if len(*b) < 4 {
		return 0, "", errRecord
	}
	schema = binary.LittleEndian.Uint32(*b)
	*b = (*b)[4:]
	raw, err := cutBytes(b)
	return schema, string(raw), err
}

// parse fills an empty history.
func (h *history) parse(b []byte) error {
	var err error
	if h.last, err = cutVarint(&b); err != nil {
		return err
	}
	for i := range h.rings {
		if err := h.rings[i].parse(&b); err != nil {
			return err
		}
		for _, c := range h.rings[i].packed {
			h.size += cap(c.bytes)
		}
	}
	if len(b) > 0 {
		return errRecord
	}
	return nil
}

func (r *ring) parse(b *[]byte) (err error) {
	if r.slot, err = cutVarint(b); err != nil {
		return err
	}
	for i := range r.now {
		if len(*b) < 16 {
			return errRecord
		}
		word := func(n int) uint32 { return binary.LittleEndian.Uint32((*b)[4*n:]) }
		r.now[i] = bucket{math.Float32frombits(word(0)), math.Float32frombits(word(1)), math.Float32frombits(word(2)), word(3)}
		*b = (*b)[16:]
	}
	if r.open, err = cutVarint(b); err != nil {
		return err
	}
	open, err := cutBytes(b)
	if err != nil {
		return err
	}
	if r.open >= 0 {
		if err := unpack(open, r.codes, r.width); err != nil {
			return err
		}
	}
	columns := make([]column, len(r.codes))
	for i := range r.packed {
		c := &r.packed[i]
		if c.number, err = cutVarint(b); err != nil {
			return err
		}
		raw, err := cutBytes(b)
		if err != nil {
			return err
		}
		if len(raw) == 0 {
			continue
		}
		if c.number < 0 || c.number%int64(len(r.packed)) != int64(i) {
			return errRecord
		}
		if err := unpack(raw, columns, r.width); err != nil {
			return err
		}
		c.bytes = bytes.Clone(raw)
	}
	return nil
}

func cutVarint(b *[]byte) (int64, error) {
	v, n := binary.Varint(*b)
	if n <= 0 {
		return 0, errRecord
	}
	*b = (*b)[n:]
	return v, nil
}

func cutBytes(b *[]byte) ([]byte, error) {
	v, n := binary.Uvarint(*b)
	if n <= 0 || v > uint64(len(*b)-n) {
		return nil, errRecord
	}
	raw := (*b)[n : n+int(v)]
	*b = (*b)[n+int(v):]
	return raw, nil
}
