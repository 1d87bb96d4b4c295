package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// ErrDamaged means that the database file is not what bbolt has written:
// cut off, overwritten, or somebody else's.
var ErrDamaged = errors.New("the database is damaged; nothing was changed, put back a copy of it")

// verify reads every page of a database that can be reached, before bbolt maps
// the file: on a damaged one bbolt panics in a goroutine of its own, and a file
// that is too short ends the process with SIGBUS. Nothing is written.
//
// The format is that of bbolt's internal/common (page.go, meta.go, bucket.go),
// version 2, in the order of bytes of the machine that wrote it; all that the
// agent runs on are little-endian.
func verify(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return nil // a new one
	}
	v := verifier{f: f, size: info.Size(), seen: map[uint64]bool{0: true, 1: true}}
	if err := v.findMeta(); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := v.tree(v.root, nil, nil); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

const (
	pageHeader   = 16 // id uint64, flags, count uint16, overflow uint32
	elementSize  = 16 // of a branch: pos, ksize uint32, pgid uint64; of a leaf: flags, pos, ksize, vsize uint32
	bucketHeader = 16 // root, sequence uint64
	metaSize     = 64 // magic, version, page size, flags uint32, root bucket, freelist, high water mark, txid, checksum uint64

	branchFlag = 0x01
	leafFlag   = 0x02
	metaFlag   = 0x04
	bucketFlag = 0x01 // of an element of a leaf

	magic   = 0xED0CDAED
	version = 2
)

type verifier struct {
	f        *os.File
	size     int64
	pageSize int64
	root     uint64
	high     uint64 // pages from here on are not in use
	seen     map[uint64]bool
}

// findMeta takes the newer of the two meta pages that are whole.
func (v *verifier) findMeta() error {
	found, newest := false, uint64(0)
	take := func(at int64) (pageSize int64, ok bool) {
		var b [pageHeader + metaSize]byte
		if _, err := v.f.ReadAt(b[:], at); err != nil || binary.LittleEndian.Uint16(b[8:])&metaFlag == 0 {
			return 0, false
		}
		m := b[pageHeader:]
		sum := fnv.New64a()
		_, _ = sum.Write(m[:metaSize-8])
		u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
		if u32(m) != magic || u32(m[4:]) != version || u64(m[56:]) != sum.Sum64() {
			return 0, false
		}
		pageSize = int64(u32(m[8:]))
		if txid := u64(m[48:]); !found || txid > newest {
			found, newest = true, txid
			v.pageSize, v.root, v.high = pageSize, u64(m[16:]), u64(m[40:])
		}
		return pageSize, true
	}

	if pageSize, ok := take(0); ok {
		take(pageSize)
	} else {
		for size := int64(1024); size <= 64<<10 && !found; size *= 2 { // the first is broken and does not tell
			take(size)
		}
	}
	switch {
	case !found:
		return errors.New("it has no whole meta page")
	case v.pageSize < 1024 || v.pageSize > 64<<10:
		return fmt.Errorf("pages of %d bytes", v.pageSize)
	case v.high > uint64(v.size/v.pageSize):
		return fmt.Errorf("%d bytes are there of %d", v.size, v.high*uint64(v.pageSize))
	}
	return nil
}

// tree verifies a page and what is below it, down from the root of a bucket.
// Its keys are from first on and before end; nil is any.
func (v *verifier) tree(id uint64, first, end []byte) error {
	page, err := v.page(id)
	if err != nil {
		return err
	}
	return v.elements(id, page, first, end)
}

// page reads a page with its overflow, and marks both.
func (v *verifier) page(id uint64) ([]byte, error) {
	if id >= v.high || v.seen[id] {
		return nil, fmt.Errorf("page %d is used twice, or there is none", id)
	}
	var head [pageHeader]byte
	if _, err := v.f.ReadAt(head[:], int64(id)*v.pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	if got := binary.LittleEndian.Uint64(head[:]); got != id {
		return nil, fmt.Errorf("page %d says it is page %d", id, got)
	}
	pages := uint64(binary.LittleEndian.Uint32(head[12:])) + 1
	if pages > v.high-id {
		return nil, fmt.Errorf("page %d goes on behind the end", id)
	}
	for i := range pages {
		if v.seen[id+i] {
			return nil, fmt.Errorf("page %d is used twice", id+i)
		}
		v.seen[id+i] = true
	}

	page := make([]byte, int64(pages)*v.pageSize)
	if _, err := v.f.ReadAt(page, int64(id)*v.pageSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return page, nil
}

// An element of a page.
type element struct {
	key    []byte
	value  []byte // of a leaf
	bucket bool   // what the value is
	page   uint64 // of a branch
}

// elements verifies what a page refers to: further pages, or keys and values.
func (v *verifier) elements(id uint64, page, first, end []byte) error {
	flags, count := binary.LittleEndian.Uint16(page[8:]), int(binary.LittleEndian.Uint16(page[10:]))
	if flags != branchFlag && flags != leafFlag {
		return fmt.Errorf("page %d is of an unknown kind, %#x", id, flags)
	}
	if flags == branchFlag && count == 0 || pageHeader+count*elementSize > len(page) {
		return fmt.Errorf("page %d has %d elements", id, count)
	}

	all := make([]element, count)
	for i := range all {
		var ok bool
		if all[i], ok = elementAt(page, i, flags == branchFlag); !ok {
			return fmt.Errorf("element %d of page %d is not in it", i, id)
		}
		key := all[i].key
		if i > 0 && bytes.Compare(all[i-1].key, key) >= 0 || bytes.Compare(key, first) < 0 || end != nil && bytes.Compare(key, end) >= 0 {
			return fmt.Errorf("element %d of page %d is out of order", i, id)
		}
	}
	for i, e := range all {
		next := end
		if i+1 < count {
			next = all[i+1].key
		}
		var err error
		switch {
		case flags == branchFlag:
			err = v.tree(e.page, e.key, next)
		case e.bucket:
			err = v.bucket(id, e.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// elementAt is element i of a page; false when it says to be outside of it.
func elementAt(page []byte, i int, branch bool) (element, bool) {
	u32 := binary.LittleEndian.Uint32
	at := uint64(pageHeader + i*elementSize)
	raw := page[at:][:elementSize]

	var e element
	var pos, keySize, valueSize uint64
	if branch {
		pos, keySize, e.page = uint64(u32(raw)), uint64(u32(raw[4:])), binary.LittleEndian.Uint64(raw[8:])
	} else {
		pos, keySize, valueSize = uint64(u32(raw[4:])), uint64(u32(raw[8:])), uint64(u32(raw[12:]))
		e.bucket = u32(raw)&bucketFlag != 0
	}
	if at+pos+keySize+valueSize > uint64(len(page)) || keySize == 0 && !branch {
		return e, false
	}
	e.key = page[at+pos:][:keySize]
	e.value = page[at+pos+keySize:][:valueSize]
	return e, true
}

// bucket verifies one that a leaf holds: a small one is in the value itself.
func (v *verifier) bucket(id uint64, value []byte) error {
	if len(value) < bucketHeader {
		return fmt.Errorf("a bucket in page %d is cut off", id)
	}
	root := binary.LittleEndian.Uint64(value)
	if root != 0 {
		return v.tree(root, nil, nil)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader {
		return fmt.Errorf("a bucket in page %d is cut off", id)
	}
	return v.elements(id, inline, nil, nil)
}
