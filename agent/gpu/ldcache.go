package gpu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
)

// A library in the cache of the dynamic linker.
type cached struct {
	flags      uint32
	name, path string
}

const (
	cacheMagic  = "glibc-ld.so.cache1.1"
	cacheHeader = 48
	cacheEntry  = 24
)

// parseLinkerCache reads /etc/ld.so.cache, whose layout is glibc's
// sysdeps/generic/dl-cache.h. Before glibc 2.32 an older table comes first; the
// offsets of names count from where the new one begins.
func parseLinkerCache(b []byte) ([]cached, error) {
	start := bytes.Index(b, []byte(cacheMagic))
	if start < 0 || len(b)-start < cacheHeader {
		return nil, errors.New("parse cache of the dynamic linker: not of the format 1.1")
	}
	b = b[start:]
	n := int(binary.NativeEndian.Uint32(b[len(cacheMagic):]))
	if n > (len(b)-cacheHeader)/cacheEntry {
		return nil, errors.New("parse cache of the dynamic linker: more entries than bytes")
	}
	libs := make([]cached, 0, n)
	for i := range n {
		e := b[cacheHeader+i*cacheEntry:]
		name, ok1 := cString(b, binary.NativeEndian.Uint32(e[4:]))
		path, ok2 := cString(b, binary.NativeEndian.Uint32(e[8:]))
		if !ok1 || !ok2 {
			return nil, errors.New("parse cache of the dynamic linker: a name lies outside")
		}
		libs = append(libs, cached{flags: binary.NativeEndian.Uint32(e), name: name, path: path})
	}
	return libs, nil
}

func cString(b []byte, offset uint32) (string, bool) {
	if uint64(offset) >= uint64(len(b)) {
		return "", false
	}
	text, _, ok := bytes.Cut(b[offset:], []byte{0})
	return string(text), ok
}

// native tells libraries of this architecture from 32-bit ones, by the flags
// FLAG_X8664_LIB64 and FLAG_AARCH64_LIB64 beside FLAG_ELF_LIBC6.
func (c cached) native() bool {
	switch runtime.GOARCH {
	case "amd64":
		return c.flags&0xffff == 0x0303
	case "arm64":
		return c.flags&0xffff == 0x0a03
	}
	return false
}
