package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"cloudflash/cmd/quantity"
	"golang.org/x/sys/unix"
)

// memory is held until burn ends.
type memory struct {
	mem  []byte
	rate int64        // bytes per second; 0 is as fast as possible
	held atomic.Int64 // bytes that have been touched
}

func newMemory(bytes, rate int64) (*memory, error) {
	m := &memory{rate: rate}
	if bytes == 0 {
		return m, nil
	}
	var err error
	m.mem, err = unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", quantity.FormatBytes(bytes), err)
	}
	return m, nil
}

// gulp is how much memory is made at a time.
const gulp = 1 << 20

// fill touches every page, so that it is there, until stop is closed.
func (m *memory) fill(stop <-chan struct{}) {
	began := time.Now()
	for at := 0; at < len(m.mem); {
		for m.early(at, began) {
			select {
			case <-stop:
				return
			case <-time.After(pause):
			}
		}
		select {
		case <-stop:
			return
		default:
			at += touch(m.mem[at:min(at+gulp, len(m.mem))], at)
			m.held.Store(int64(at))
		}
	}
}

// touch makes memory that begins at an offset be there, and returns how much.
func touch(mem []byte, at int) int {
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE) // Linux 5.14: without a fault for each page
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = byte((at+i)>>12) | 1 // no two pages alike, none zero
	}
	return len(mem)
}

// early reports whether the rate does not let the byte at an offset be touched yet. A
// time in which the kernel held it up is made up for.
func (m *memory) early(at int, began time.Time) bool {
	return m.rate > 0 && float64(at) > float64(m.rate)*time.Since(began).Seconds()
}
