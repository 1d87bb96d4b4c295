package storage

import (
	"os"

	"golang.org/x/sys/unix"
)

// Capacity is the disk space there is, in bytes.
type Capacity struct {
	Total    int64 // what all VMs together could hold now, were they all full
	Free     int64 // what they could write still
	Promised int64 // the sum of their limits
}

// Capacity reads how much there is. In a pool, which grows, that is what the disk
// below can still give, without its reserve.
func (s *Storage) Capacity() (Capacity, error) {
	var c Capacity
	s.mu.Lock()
	for _, limit := range s.limits {
		c.Promised += limit
	}
	s.mu.Unlock()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(s.dir.Fd()), &st); err != nil {
		return c, &os.PathError{Op: "statfs", Path: s.Dir(), Err: err}
	}
	c.Total, c.Free = int64(st.Blocks)*st.Frsize, int64(st.Bavail)*st.Frsize
	if s.pool == nil {
		return c, nil
	}
	room, err := s.pool.backing()
	if err != nil {
		return c, err
	}
	// What may still be written is the least of what the file system can become
	// and what the disk can give: room counts blocks the pool holds already.
	used := c.Total - int64(st.Bfree)*st.Frsize
	c.Total = fits(room)
	c.Free = max(c.Total-used, 0)
	return c, nil
}
