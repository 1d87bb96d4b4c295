package access

import (
	"net"
	"sync"
)

// maxConnections is how many connections a listener has at a time. Others wait in the
// kernel until one ends: what no client has asked for yet takes none of the agent's memory.
const maxConnections = 1024

// bound bounds the connections of a listener.
func bound(l net.Listener, most int) net.Listener {
	return &bounded{Listener: l, room: make(chan struct{}, most), closed: make(chan struct{})}
}

type bounded struct {
	net.Listener
	room   chan struct{} // a token for each connection
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a connection, and for room.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.room <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.room
		return nil, err
	}
	return &boundConn{Conn: c, leave: sync.OnceFunc(func() { <-b.room })}, nil
}

// Close ends the listener. Connections go on.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

type boundConn struct {
	net.Conn
	leave func()
}

// Close makes room for another.
func (c *boundConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite is what net/http ends a connection with that is still being sent to.
func (c *boundConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
