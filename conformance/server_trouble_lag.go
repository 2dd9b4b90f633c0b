package conformance

import (
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// laggingNode has a client come to a node with a position that this node will
// know only later.
func (c *serverCheck) laggingNode() {
	c.publish("room", "1")
	behind := c.another()
	catchUp := behind.testee.Lag("room")
	beyond := c.publish("room", "2")
	want := c.publish("room", "3")
	time.AfterFunc(5*time.Second, catchUp)
	for range 20 {
		if c.goesOnAt(behind, beyond, want) {
			return
		}
		time.Sleep(time.Second)
	}
	c.fatalf("20 s after it was first refused, and 15 s after the node had caught up, it was not let in")
}

// goesOnAt reports whether a line was let in, and brought the event after the
// one presented. A refusal has to be for a while.
func (c *serverCheck) goesOnAt(s *site, presented, want string) bool {
	stream, err := c.form.open(c, s, "room", presented)
	if err == nil {
		defer stream.Close()
	}
	for err == nil {
		var it wireclient.Item
		switch it, err = stream.Next(); {
		case it.Gap != nil, it.Event && it.Position != want:
			c.fatalf("it presented what the node has not seen yet, and %s came", inWords(it))
		case it.Event:
			return true
		}
	}
	if r, ok := refusalOf(err); ok && r.Class != "later" {
		c.fatalf("it presented what the node has not seen yet, and was refused with %d %q, class %q", r.Status, r.Code, r.Class)
	}
	return false
}
