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

// fill touches every page, so that it is there, until stop is closed.
func (m *memory) fill(stop <-chan struct{}) {
	page := os.Getpagesize()
	began := time.Now()
	for i := 0; i < len(m.mem); i += page {
		for m.early(i, began) {
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
			m.mem[i] = byte(i>>12) | 1 // no two pages alike, none zero
			m.held.Store(int64(min(i+page, len(m.mem))))
		}
	}
}

// early reports whether the rate does not let the byte at i be touched yet. A time
// in which the kernel held it up is made up for.
func (m *memory) early(i int, began time.Time) bool {
	return m.rate > 0 && float64(i) > float64(m.rate)*time.Since(began).Seconds()
}
