package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tick        = 50 * time.Millisecond
	diskFile    = 64 << 20 // the one file that is rewritten
	largestGulp = 1 << 20
)

// pace calls put with chunks so that rate bytes per second pass, until stop is
// closed or put fails. What a slow receiver did not take is not made up for.
func pace(rate int64, stop <-chan struct{}, put func(chunk []byte) error) (int64, error) {
	chunk := make([]byte, min(max(rate*int64(tick)/int64(time.Second), 1), largestGulp))
	interval := time.Duration(float64(len(chunk)) / float64(rate) * float64(time.Second))
	var done int64
	next := time.Now()
	for {
		select {
		case <-stop:
			return done, nil
		case <-time.After(time.Until(next)):
		}
		if err := put(chunk); err != nil {
			return done, err
		}
		done += int64(len(chunk))
		next = next.Add(interval)
		if late := time.Now().Add(-2 * tick); next.Before(late) {
			next = late
		}
	}
}

// writeDisk rewrites one nameless file, past the page cache.
func writeDisk(dir string, rate int64, stop <-chan struct{}) (int64, error) {
	path := filepath.Join(dir, fmt.Sprintf(".burn-%d", os.Getpid()))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := os.Remove(path); err != nil { // nothing stays behind, however it ends
		return 0, err
	}
	var at int64
	return pace(rate, stop, func(chunk []byte) error {
		n, err := f.WriteAt(chunk, at%diskFile)
		at += int64(n)
		if err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd()))
	})
}

// sendNet sends to a TCP address; to itself over loopback when none is given.
func sendNet(to string, rate int64, stop <-chan struct{}) (int64, error) {
	if to == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		defer l.Close()
		go swallow(l)
		to = l.Addr().String()
	}
	c, err := net.DialTimeout("tcp", to, 10*time.Second)
	if err != nil {
		return 0, err
	}
	go func() { <-stop; c.Close() }() // wakes a write that is stuck
	sent, err := pace(rate, stop, func(chunk []byte) error {
		_, err := c.Write(chunk)
		return err
	})
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return sent, err
}

func swallow(l net.Listener) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.Copy(io.Discard, c)
}
