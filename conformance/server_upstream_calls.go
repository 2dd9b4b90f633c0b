package conformance

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// callOf is a frame call, its data JSON.
func callOf(id int, name, data string) string {
	text, _ := json.Marshal(name)
	return fmt.Sprintf(`{"call":{"id":%d,"name":%s,"data":%s}}`, id, text, data)
}

// replyOf is the answer to a call in short: its id, and its data with their
// encoding, or a code.
func replyOf(it wireclient.Item) string {
	switch {
	case it.Close != nil:
		return "refused:" + it.Close.Code
	case it.Reply == nil:
		return inWords(it)
	case it.Reply.Error != nil:
		return fmt.Sprintf("%d:%s", it.Reply.ID, it.Reply.Error.Code)
	}
	return strings.TrimSpace(fmt.Sprintf("%d:%s %s", it.Reply.ID, it.Reply.Data, it.Reply.Encoding))
}

func (c *serverCheck) callIsAnswered() {
	say := c.mouth()
	c.expect("a call with JSON", replyOf(say(callOf(1, "echo", `{"a": [1]}`))), `1:{"a": [1]}`)
	c.expect("a call with the highest id", replyOf(say(callOf(1<<53-1, "echo", "null"))), `9007199254740991:null`)
	c.expect("a call with binary", replyOf(say(`{"call":{"id":2,"name":"echo","data":"AAH/","encoding":"base64"}}`)), `2:"AAH/" base64`)
	c.expect("a call with a text", replyOf(say(`{"call":{"id":3,"name":"echo","data":"a\nb","encoding":"text"}}`)), `3:"a\nb"`)
	c.expect("an id that was used, once it is answered", replyOf(say(callOf(3, "echo", "4"))), "3:4")
}

func (c *serverCheck) malformedCall() {
	for _, malformed := range []struct{ what, frame string }{
		{"an empty name", callOf(1, "", "1")},
		{"a name of 201 bytes", callOf(1, strings.Repeat("a", 201), "1")},
		{"no data", `{"call":{"id":1,"name":"echo"}}`},
		{"a negative id", callOf(-1, "echo", "1")},
		{"an encoding nobody knows", `{"call":{"id":1,"name":"echo","data":"","encoding":"hex"}}`},
		{"a key of 65 characters", `{"call":{"id":1,"name":"echo","data":1,"key":"` + strings.Repeat("k", 65) + `"}}`},
		{"a key with a space", `{"call":{"id":1,"name":"echo","data":1,"key":"a b"}}`},
		{"a batch beside it", strings.TrimSuffix(batchOf(aProducer, batchFrame(1, "room")), "}") + "," + callOf(1, "echo", "1")[1:]},
	} {
		c.expect("a call with "+malformed.what, replyOf(c.mouth()(malformed.frame)), "refused:bad_request")
	}
}

func (c *serverCheck) unknownAfterTheDeadline() {
	say := c.mouth()
	for _, name := range []string{"slow", "deaf"} {
		began := time.Now()
		c.expect("a call whose handler takes longer than its 4s", replyOf(say(callOf(6, name, "1"))), "6:unknown")
		if took := time.Since(began); took < 4*time.Second || took > 5*time.Second {
			c.errorf("the call was answered after %v, not after the 4s of its deadline", took)
		}
	}
	c.expect("the next call", replyOf(say(callOf(7, "echo", "1"))), "7:1")
}

func (c *serverCheck) handlerSeesTheKey() {
	key := strings.Repeat("k-_9", 16)
	frame := `{"call":{"id":1,"name":"key","data":1,"key":"` + key + `"}}`
	for range 2 {
		c.expect("a call with a key, to a handler that answers with it", replyOf(c.mouth()(frame)), `1:"`+key+`"`)
	}
	c.expect("a call without a key", replyOf(c.mouth()(callOf(2, "key", "1"))), `2:""`)
}

func (c *serverCheck) onlySoManyCalls() {
	line := c.line(helloOf(1))
	for id := 1; id <= 3; id++ {
		line.say(callOf(id, "slow", "1"))
	}
	c.settle()
	began := time.Now()
	line.say(callOf(4, "echo", "1"))
	it := line.next()
	c.expect("the fourth call of a client that may have three in work", replyOf(it), "4:busy")
	if it.Reply != nil && it.Reply.Error != nil && (it.Reply.Error.Class != "later" || it.Reply.Error.After <= 0) {
		c.errorf("busy has the class %q and the delay %d ms, not later and some", it.Reply.Error.Class, it.Reply.Error.After)
	}
	c.expect("another one by request", replyOf(c.up(c.site, line.token, callOf(5, "echo", "1"))), "5:busy")
	c.expect("another client's call", replyOf(c.mouthOver(byLine, c.site)(callOf(1, "echo", "1"))), "1:1")
	if took := time.Since(began); took >= 4*time.Second {
		c.errorf("beside calls that take 5s, what is quick took %v", took)
	}
	done := map[string]bool{}
	for range 3 {
		done[replyOf(line.next())] = true
	}
	if !done["1:1"] || !done["2:1"] || !done["3:1"] {
		c.errorf("the three calls that were in work were answered with %v", done)
	}
	c.settle()
	line.say(callOf(4, "echo", "2"))
	c.expect("the next call when they are answered", replyOf(line.next()), "4:2")
}

func (c *serverCheck) slowCallHoldsUpNobody() {
	c.besideSomethingSlow(callOf(77, "slow", `"done"`), func(it wireclient.Item) { c.expect("the call that took its time", replyOf(it), `77:"done"`) },
		func(say mouth) {
			c.expect("another client's call", replyOf(say(callOf(1, "echo", "1"))), "1:1")
			if byRequest.lacking(c.server) == "" {
				c.expect("a call by request", replyOf(c.up(c.site, "", callOf(1, "echo", "1"))), "1:1")
			}
		})
}

func (c *serverCheck) failsWithoutItsText() {
	say := c.mouth()
	it := say(callOf(1, "fails", "1"))
	c.expect("a call whose handler fails", replyOf(it), "1:failed")
	if it.Reply != nil && it.Reply.Error != nil && strings.Contains(it.Reply.Error.Message, "secret") {
		c.errorf("the answer shows the handler's text: %q", it.Reply.Error.Message)
	}
	it = say(callOf(2, "own", "1"))
	c.expect("a call that the program refuses with a code of its own", replyOf(it), "2:no_sugar")
	if it.Reply != nil && it.Reply.Error != nil && it.Reply.Error.Class != "never" {
		c.errorf("it has the class %q, not never", it.Reply.Error.Class)
	}
}
