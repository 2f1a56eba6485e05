// gorilla/websocket: a set of sockets for each session, a goroutine and a queue for each socket, as in its chat example, and frames
// that are prepared once for all of them. The queue is a slice, since a channel holds the memory of all that it may ever hold.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/jackc/pgx/v5"
)

const (
	// Messages that may wait for a socket; who lets more wait is cut.
	waiting      = 16384
	writeLimit   = 10 * time.Second
	pingInterval = 54 * time.Second
)

type client struct {
	socket *websocket.Conn
	wake   chan struct{}
	lock   sync.Mutex
	queue  []*websocket.PreparedMessage
}

// False if too much waits already.
func (c *client) push(message *websocket.PreparedMessage) bool {
	c.lock.Lock()
	fits := len(c.queue) < waiting
	if fits {
		c.queue = append(c.queue, message)
	}
	c.lock.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return fits
}

func (c *client) take() []*websocket.PreparedMessage {
	c.lock.Lock()
	defer c.lock.Unlock()
	queue := c.queue
	c.queue = nil
	return queue
}

type hub struct {
	lock  sync.RWMutex
	rooms map[string]map[*client]struct{}
}

func (h *hub) join(session string, c *client) {
	h.lock.Lock()
	defer h.lock.Unlock()
	if h.rooms[session] == nil {
		h.rooms[session] = map[*client]struct{}{}
	}
	h.rooms[session][c] = struct{}{}
}

func (h *hub) leave(session string, c *client) {
	h.lock.Lock()
	defer h.lock.Unlock()
	delete(h.rooms[session], c)
	if len(h.rooms[session]) == 0 {
		delete(h.rooms, session)
	}
}

func (h *hub) broadcast(session string, message *websocket.PreparedMessage) {
	h.lock.RLock()
	defer h.lock.RUnlock()
	for c := range h.rooms[session] {
		if !c.push(message) {
			c.socket.Close()
		}
	}
}

func (c *client) write(done <-chan struct{}) {
	defer c.socket.Close()
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-c.wake:
			c.socket.SetWriteDeadline(time.Now().Add(writeLimit))
			for _, message := range c.take() {
				if err = c.socket.WritePreparedMessage(message); err != nil {
					return
				}
			}
		case <-ticker.C:
			err = c.socket.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeLimit))
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// With a pool, buffers for writing are only held while something is written.
var upgrader = websocket.Upgrader{WriteBufferPool: &sync.Pool{}}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	socket, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	session := r.URL.Query().Get("session")
	c := &client{socket: socket, wake: make(chan struct{}, 1)}
	h.join(session, c)
	defer h.leave(session, c)
	answer, err := json.Marshal(map[string]string{"subscribed": session})
	if err != nil {
		log.Fatal(err)
	}
	message, err := websocket.NewPreparedMessage(websocket.TextMessage, answer)
	if err != nil {
		log.Fatal(err)
	}
	c.push(message)
	done := make(chan struct{})
	defer close(done)
	go c.write(done)
	for {
		if _, _, err := socket.NextReader(); err != nil {
			return
		}
	}
}

func (h *hub) follow(connection *pgx.Conn) error {
	for {
		notification, err := connection.WaitForNotification(context.Background())
		if err != nil {
			return err
		}
		var change struct {
			Record struct {
				Session string `json:"session_id"`
			} `json:"record"`
		}
		text := []byte(notification.Payload)
		if err := json.Unmarshal(text, &change); err != nil {
			return err
		}
		message, err := websocket.NewPreparedMessage(websocket.TextMessage, text)
		if err != nil {
			return err
		}
		h.broadcast(change.Record.Session, message)
	}
}

func main() {
	h := &hub{rooms: map[string]map[*client]struct{}{}}
	connection, err := pgx.Connect(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := connection.Exec(context.Background(), "listen chat_messages"); err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(h.follow(connection)) }()
	http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") })
	http.HandleFunc("/", h.serve)
	log.Fatal(http.ListenAndServe(os.Getenv("LISTEN"), nil))
}
