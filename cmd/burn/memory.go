package main

import (
	"fmt"
	"os"

	"cloudflash/cmd/quantity"
	"golang.org/x/sys/unix"
)

// hold maps memory and touches every page, so that it is there. When stop is closed
// before the end it returns what it has touched.
func hold(bytes int64, stop <-chan struct{}) ([]byte, error) {
	if bytes == 0 {
		return nil, nil
	}
	mem, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", quantity.FormatBytes(bytes), err)
	}
	for i := 0; i < len(mem); i += os.Getpagesize() {
		select {
		case <-stop:
			return mem[:i], nil
		default:
			mem[i] = byte(i>>12) | 1 // no two pages alike, none zero
		}
	}
	return mem, nil
}
