package access

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

const (
	codeLife = 5 * time.Minute
	maxCodes = 100
)

// codes are the one-time login codes that have not been used, by their hash.
type codes struct {
	mu   sync.Mutex
	open map[[32]byte]openCode
}

type openCode struct {
	role    string
	expires time.Time
}

func newCodes() *codes { return &codes{open: map[[32]byte]openCode{}} }

func (c *codes) add(role string) (string, time.Time) {
	code := rand.Text() // 130 random bits
	o := openCode{role, time.Now().Add(codeLife).UTC()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	for len(c.open) >= maxCodes { // somebody makes codes and uses none: the oldest go
		var oldest [32]byte
		for h, v := range c.open {
			if first, ok := c.open[oldest]; !ok || v.expires.Before(first.expires) {
				oldest = h
			}
		}
		delete(c.open, oldest)
	}
	c.open[sha256.Sum256([]byte(code))] = o
	return code, o.expires
}

// take uses a code up. Looking up a hash tells nothing through its timing.
func (c *codes) take(code string) (role string, ok bool) {
	h := sha256.Sum256([]byte(code))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	o, ok := c.open[h]
	delete(c.open, h)
	return o.role, ok
}

func (c *codes) expire() {
	for h, o := range c.open {
		if time.Now().After(o.expires) {
			delete(c.open, h)
		}
	}
}
