package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// aProducer is the name of one, of the fewest characters that will do.
const aProducer = "0123456789abcdefghij_-"

// batchOf is a frame publish of a producer, its frames in JSON.
func batchOf(producer string, frames ...string) string {
	return `{"publish":{"producer":"` + producer + `","frames":[` + strings.Join(frames, ",") + `]}}`
}

// batchFrame is a publish frame of one message, which is its number.
func batchFrame(seq int, channel string) string { return batchFrameOf(seq, channel, fmt.Sprint(seq)) }

// batchFrameOf is a publish frame of messages of JSON.
func batchFrameOf(seq int, channel string, data ...string) string {
	name, _ := json.Marshal(channel)
	return fmt.Sprintf(`{"seq":%d,"channel":%s,"messages":[{"data":%s}]}`, seq, name, strings.Join(data, `},{"data":`))
}

// repeats marks publish frames as repeats.
func repeats(frames ...string) (list []string) {
	for _, f := range frames {
		list = append(list, strings.TrimSuffix(f, "}")+`,"repeat":true}`)
	}
	return list
}

// outcomesOf are the entries of an answer in short: a number with "ok", "dup",
// the code of a refusal, or "retry:" with a code.
func outcomesOf(it wireclient.Item) string {
	var list []string
	for _, o := range it.Published {
		word := "ok"
		switch {
		case o.Error != nil:
			word = o.Error.Code
		case o.Retry != nil:
			word = "retry:" + o.Retry.Code
		case o.Position == "":
			word = "nothing"
		case o.Duplicate:
			word = "dup"
		}
		if o.Tried {
			word += ":tried"
		}
		list = append(list, fmt.Sprintf("%d:%s", o.Seq, word))
	}
	switch {
	case it.Close != nil:
		list = append(list, "refused:"+it.Close.Code)
	case it.Published == nil:
		list = append(list, inWords(it))
	}
	return strings.Join(list, " ")
}

func (c *serverCheck) tokenIsNoCondition() {
	open := c.lineOver(c.aForm(sessionForms...), c.site, c.http, helloOf(1))
	for n, token := range []string{open.token, "", open.token + "x", "none that there ever was"} {
		got := outcomesOf(c.up(c.site, token, batchOf(aProducer, batchFrame(n+1, "room"))))
		c.expect(fmt.Sprintf("a publish with the token %.60q", token), got, fmt.Sprintf("%d:ok", n+1))
	}
	c.holds("room", "1", "2", "3", "4")
}

func (c *serverCheck) closeNeedsItsToken() {
	open := c.line(helloOf(1, "room"))
	open.opening()
	for _, token := range []string{"", open.token + "x"} {
		a := c.postUp(c.site, `{"up":{"version":1,"token":"`+token+`"},"close":{"line":1}}`)
		c.expect(fmt.Sprintf("a close with the token %.60q", token), fmt.Sprint(a.status, " ", strings.TrimSpace(a.text)), "200 {}")
		open.reaches(c.publish("room", "1"))
	}
	a := c.postUp(c.site, `{"up":{"version":1,"token":"`+open.token+`"},"close":{"line":1}}`)
	c.expect("a close with the line's token", fmt.Sprint(a.status, " ", strings.TrimSpace(a.text)), "200 {}")
}

func (c *serverCheck) upCantBeRead() {
	good := batchFrame(1, "room")
	for body, code := range map[string]string{
		batchOf(aProducer, good):                                            "bad_request", // no head
		`{"up":{"version":1}}`:                                              "bad_request",
		`{"up":{"version":1},"subscribe":[{"channel":"room"}]}`:             "bad_request",
		`{"up":{"version":1},"hello":{"version":1}}`:                        "bad_request",
		`{"up":{"version":1},"close":{},` + batchOf(aProducer, good)[1:]:    "bad_request",
		`{"up":{"version":2},"what comes":"later"}`:                         "bad_version",
		`{"up":{"version":2},` + batchOf(aProducer, good)[1:]:               "bad_version",
		`{"up":{},` + batchOf(aProducer, good)[1:]:                          "bad_version",
		`{"up":{"version":1},` + strings.TrimSuffix(batchOf("", good), "}"): "bad_request",
		`{"up":{"version":1},` + batchOf(aProducer, good)[1:] + "1":         "bad_request",
		"": "bad_request",
	} {
		a := c.postUp(c.site, body)
		why := c.refusedAs(fmt.Sprintf("%q", body), a, http.StatusBadRequest, code, "never")
		if code == "bad_version" && fmt.Sprint(why.Versions) != "[1]" {
			c.errorf("%q was refused without the versions that are spoken: %.200q", body, a.text)
		}
	}
	c.holds("room")
}

func (c *serverCheck) largestMessage() {
	const most = 100_000
	plain := `"` + strings.Repeat("a", most-2) + `"`
	escaped := `"` + strings.Repeat(`\u0061`, most) + `"` // a text, which its escapes make six times as long
	text := `{"seq":2,"channel":"room","messages":[{"encoding":"text","data":` + escaped + `}]}`
	long := batchFrameOf(3, "room", `"`+strings.Repeat("a", most-1)+`"`)
	c.expect("a message of the largest size", outcomesOf(c.up(c.site, "", batchOf(aProducer, batchFrameOf(1, "room", plain)))), "1:ok")
	c.expect("a text of the largest size, each character escaped", outcomesOf(c.up(c.site, "", batchOf(aProducer, text))), "2:ok")
	c.expect("a message one byte larger", outcomesOf(c.up(c.site, "", batchOf(aProducer, long))), "3:too_large")
	got := []int{}
	for _, e := range c.contents(c.site, "room") {
		got = append(got, len(e.Data))
	}
	c.expect("the sizes of what was appended", fmt.Sprint(got), fmt.Sprint([]int{most, most + 2})) // JSON quotes the text
}

func (c *serverCheck) noContentEncoding() {
	body := `{"up":{"version":1},` + batchOf(aProducer, batchFrame(1, "room"))[1:]
	a := c.postUp(c.site, body, "Content-Encoding", "gzip")
	c.refusedAs("a body with Content-Encoding: gzip", a, http.StatusUnsupportedMediaType, "bad_encoding", "never")
	c.holds("room")
}

func (c *serverCheck) publishAtAnyNode() {
	far := c.another()
	r := c.readOver(c.aForm(allForms...), c.site, "room", "")
	r.opening()
	open := c.lineOver(c.aForm(sessionForms...), c.site, c.http, helloOf(1))
	it := c.mouthOver(c.form, far)(batchOf(aProducer, batchFrame(1, "room")))
	if got := outcomesOf(it); got != "1:ok" {
		c.fatalf("a publish at another node: %q came, not \"1:ok\"", got)
	}
	r.event(it.Published[0].Position, "1")
	it = c.up(far, open.token, batchOf(aProducer, batchFrame(2, "room")))
	if got := outcomesOf(it); got != "2:ok" {
		c.fatalf("a publish at another node with the token of the first: %q came, not \"2:ok\"", got)
	}
	r.event(it.Published[0].Position, "2")
}

func (c *serverCheck) appendedAsSaid() {
	it := c.mouth()(batchOf(aProducer, `{"seq":7,"channel":"room","messages":[{"type":"said","data":{"a": [1, "é"]}},`+
		`{"data":"AAEC/w==","encoding":"base64"},{"type":"told","data":"plain \"text\"\r\n","encoding":"text"},{"data":"a JSON string"}]}`))
	c.expect("a publish of four messages", outcomesOf(it), "7:ok")
	got, last := "", ""
	for _, e := range c.contents(c.site, "room") {
		encoding := "binary"
		if e.JSON {
			encoding = "JSON"
		}
		got += fmt.Sprintf("%s %s %s; ", e.Type, encoding, e.Data)
		last = e.Position
	}
	c.expect("what the channel holds", got,
		"said JSON {\"a\": [1, \"é\"]}; message binary \x00\x01\x02\xff; told JSON \"plain \\\"text\\\"\\r\\n\"; message JSON \"a JSON string\"; ")
	if len(it.Published) == 1 && it.Published[0].Position != last {
		c.errorf("the publish was answered with the position %q, and its last message is at %q", it.Published[0].Position, last)
	}
}

func (c *serverCheck) comesToReadersInOrder() {
	r := c.read("room", "")
	r.opening()
	way := byRequest
	if byLine.lacking(c.server) == "" && c.form.carrier == "ws" {
		way = byLine
	}
	say := c.mouthOver(way, c.site)
	for n := 1; n <= 20; n += 2 {
		it := say(batchOf(aProducer, batchFrame(n, "room"), batchFrame(n+1, "elsewhere")))
		if got, want := outcomesOf(it), fmt.Sprintf("%d:ok %d:ok", n, n+1); got != want {
			c.fatalf("a batch was answered %q, not %q", got, want)
		}
		r.event(it.Published[0].Position, fmt.Sprint(n))
	}
	r.event(c.publish("room", "99"), "99")
}

func (c *serverCheck) nextToEachOther() {
	const producers, publishes = 4, 10
	var all sync.WaitGroup
	for p := range producers {
		say := c.mouth()
		all.Go(func() {
			defer func() { _ = recover() }() // of fatalf, whose finding is noted
			for n := 1; n <= publishes; n++ {
				data := fmt.Sprintf(`"%d.%d"`, p, n)
				say(batchOf(fmt.Sprintf("%s%d", aProducer, p), batchFrameOf(n, "room", data, data, data)))
			}
		})
	}
	all.Wait()
	got := c.contents(c.site, "room")
	if len(got) != 3*producers*publishes {
		c.fatalf("the channel holds %d events, not the %d that were published", len(got), 3*producers*publishes)
	}
	for i := 0; i < len(got); i += 3 {
		if a, b, d := string(got[i].Data), string(got[i+1].Data), string(got[i+2].Data); a != b || a != d {
			c.fatalf("%s, %s and %s are next to each other, though each publish has three equal messages", a, b, d)
		}
	}
}

func (c *serverCheck) allOrNothing() {
	bad := `{"seq":2,"channel":"room","messages":[{"data":1},{"data":2,"type":"throughline.x"},{"data":3}]}`
	c.expect("publishes, the second with a message of a reserved type", outcomesOf(c.mouth()(batchOf(aProducer, batchFrame(1, "other"), bad))), "1:ok 2:invalid")
	c.holds("room")
}

func (c *serverCheck) asManyAsStated() {
	say := c.mouth()
	var frames, want []string
	for n := 1; n <= 64; n++ {
		frames = append(frames, batchFrame(n, fmt.Sprint("room", n)))
		want = append(want, fmt.Sprintf("%d:ok", n))
	}
	c.expect("64 frames", outcomesOf(say(batchOf(aProducer, frames...))), strings.Join(want, " "))
	var messages []string
	for n := range 100 {
		messages = append(messages, fmt.Sprint(n))
	}
	c.expect("100 messages", outcomesOf(say(batchOf(aProducer, batchFrameOf(65, "room", messages...)))), "65:ok")
	c.holds("room", messages...)
	c.expect("a producer of 64 characters", outcomesOf(say(batchOf(strings.Repeat("z", 64), batchFrame(1, "room")))), "1:ok")
}

func (c *serverCheck) malformedBatch() {
	room := batchFrame(1, "room")
	messages := func(list string) string {
		return batchOf(aProducer, `{"seq":1,"channel":"room","messages":[`+list+`]}`)
	}
	var tooMany []string
	for n := 1; n <= 65; n++ {
		tooMany = append(tooMany, batchFrame(n, fmt.Sprint("room", n)))
	}
	for _, malformed := range []struct{ what, frame string }{
		{"falling numbers", batchOf(aProducer, batchFrame(2, "room"), batchFrame(1, "other"))},
		{"equal numbers", batchOf(aProducer, room, batchFrame(1, "other"))},
		{"the number 0", batchOf(aProducer, batchFrame(0, "room"))},
		{"two frames of a channel", batchOf(aProducer, room, batchFrame(2, "room"))},
		{"65 frames", batchOf(aProducer, append(tooMany[:64], batchFrame(65, "room"))...)},
		{"no frame", batchOf(aProducer)},
		{"no message", messages("")},
		{"101 messages", messages(strings.TrimSuffix(strings.Repeat(`{"data":1},`, 101), ","))},
		{"no producer", batchOf("", room)},
		{"a producer of 21 characters", batchOf(aProducer[1:], room)},
		{"a producer of 65 characters", batchOf(strings.Repeat("z", 65), room)},
		{"a producer with a +", batchOf("+"+aProducer, room)},
		{"an encoding nobody knows", messages(`{"data":"","encoding":"hex"}`)},
		{"a message without data", messages(`{"type":"said"}`)},
		{"a number as text", messages(`{"data":1,"encoding":"text"}`)},
		{"base64 of another alphabet", messages(`{"data":"_-","encoding":"base64"}`)},
	} {
		c.expect("a batch with "+malformed.what, outcomesOf(c.mouth()(malformed.frame)), "refused:bad_request")
	}
	c.holds("room")
}

func (c *serverCheck) oneBatchUnderWay() {
	r := c.lineOver(sessionWS, c.site, c.http, helloOf(1))
	r.say(batchOf(aProducer, batchFrame(1, "slow")))
	r.say(batchOf(aProducer, batchFrame(2, "room")))
	c.expect("a second batch before the first was answered", outcomesOf(r.next()), "refused:bad_request")
	say := c.mouth()
	for n := 2; n < 100; n++ {
		c.expect("the next batch right after an answer", outcomesOf(say(batchOf(aProducer, batchFrame(n, "room")))), fmt.Sprintf("%d:ok", n))
	}
}

func (c *serverCheck) slowBatchHoldsUpNobody() {
	slow := batchOf(aProducer, batchFrame(1, "a"), batchFrame(2, "slow"), batchFrame(3, "b"))
	c.besideSomethingSlow(slow, func(it wireclient.Item) { c.expect("the batch that took its time", outcomesOf(it), "1:ok 2:ok 3:ok") },
		func(say mouth) {
			c.expect("another producer's batch", outcomesOf(say(batchOf("another"+aProducer, batchFrame(1, "a")))), "1:ok")
		})
}

// besideSomethingSlow says what takes 5 s, and checks that meanwhile others can
// do what they do, and events come, without waiting for it.
func (c *serverCheck) besideSomethingSlow(frame string, answered func(wireclient.Item), others func(mouth)) {
	other := c.mouth()
	reader := c.readOver(c.aForm(allForms...), c.site, "room", "")
	reader.opening()
	var itself *reading
	answer := make(chan wireclient.Item, 1)
	if c.form.carrier == "ws" {
		itself = c.lineOver(sessionWS, c.site, c.http, helloOf(1, "room")).reading
		itself.opening()
		itself.say(frame)
	} else {
		go func() {
			defer func() { _ = recover() }() // of fatalf, whose finding is noted
			defer close(answer)
			answer <- c.up(c.site, "", frame)
		}()
	}
	c.settle()
	began := time.Now()
	others(other)
	at := c.publish("room", "7")
	reader.event(at, "7")
	if itself != nil {
		itself.event(at, "7")
	}
	if took := time.Since(began); took >= 4*time.Second {
		c.errorf("what is quick took %v beside what takes 5s", took)
	}
	if itself != nil {
		answered(itself.next())
	} else {
		answered(<-answer)
	}
}

func (c *serverCheck) anEntryForEach() {
	it := c.mouth()(batchOf(aProducer, batchFrameOf(3, "room", "1", "2"), batchFrame(4, "forbidden"), batchFrame(6, "other"), batchFrame(9, "own"), batchFrame(10, "third")))
	if got, want := outcomesOf(it), "3:ok 4:forbidden 6:ok 9:pay_first 10:ok"; got != want {
		c.fatalf("%q came, not %q", got, want)
	}
	for i, channel := range map[int]string{0: "room", 2: "other", 4: "third"} {
		events := c.contents(c.site, channel)
		if len(events) == 0 || events[len(events)-1].Position != it.Published[i].Position {
			c.errorf("frame %d was answered with the position %q, which is not that of the last event of %q: %+v", it.Published[i].Seq, it.Published[i].Position, channel, events)
		}
	}
	c.holds("forbidden")
	c.holds("own")
}

func (c *serverCheck) duplicateIsSaid() {
	say := c.mouth()
	first := say(batchOf(aProducer, batchFrameOf(7, "room", "1", "2"), batchFrame(9, "other")))
	c.expect("a batch", outcomesOf(first), "7:ok 9:ok")
	c.publish("room", "3")
	again := say(batchOf(aProducer, append(repeats(batchFrameOf(7, "room", "1", "2")), batchFrame(9, "other"), batchFrame(10, "third"))...))
	if got, want := outcomesOf(again), "7:dup 9:dup 10:ok"; got != want {
		c.fatalf("the same again, with one frame more: %q came, not %q", got, want)
	}
	c.expect("the position of the duplicate", again.Published[0].Position, first.Published[0].Position)
	c.expect("a lower number in a channel that has its own", outcomesOf(say(batchOf(aProducer, batchFrame(8, "fourth")))), "8:ok")
	c.holds("room", "1", "2", "3")
	c.holds("other", "9")
}

func (c *serverCheck) stopsThere() {
	say := c.mouth()
	it := say(batchOf(aProducer, batchFrame(1, "room"), batchFrame(2, "forbidden"), batchFrame(3, "busy"), batchFrame(4, "other"), batchFrame(5, "forbidden too")))
	if got, want := outcomesOf(it), "1:ok 2:forbidden 3:retry:busy"; got != want {
		c.fatalf("a batch whose third frame is to be tried later: %q came, not %q", got, want)
	}
	if why := it.Published[2].Retry; why.Class != "later" {
		c.errorf("the class of the retry is %q, not later", why.Class)
	}
	c.holds("other")
	c.expect("what was not worked on, sent again", outcomesOf(say(batchOf(aProducer, batchFrame(4, "other"), batchFrame(5, "room")))), "4:ok 5:ok")
	c.holds("room", "1", "5")
}

func (c *serverCheck) triedIsSaid() {
	say := c.mouth()
	c.expect("a batch", outcomesOf(say(batchOf(aProducer, batchFrame(1, "room")))), "1:ok")
	want := []string{"1"}
	for n := 2; n <= 6; n += 2 {
		c.testee.Outage(true)
		it := say(batchOf(aProducer, batchFrame(n, "room"), batchFrame(n+1, "other")))
		c.testee.Outage(false)
		if got, want := outcomesOf(it), fmt.Sprintf("%d:retry:unavailable:tried", n); got != want {
			c.fatalf("a batch while the log does not answer: %q came, not %q", got, want)
		}
		if why := it.Published[0].Retry; why.Class != "later" || why.After <= 0 {
			c.errorf("the retry has the class %q and the delay %d ms, not later and some", why.Class, why.After)
		}
		again := outcomesOf(say(batchOf(aProducer, append(repeats(batchFrame(n, "room")), batchFrame(n+1, "other"))...)))
		if ok, dup := fmt.Sprintf("%d:ok %d:ok", n, n+1), fmt.Sprintf("%d:dup %d:ok", n, n+1); again != ok && again != dup {
			c.fatalf("its repeat: %q came, neither %q nor %q", again, ok, dup)
		}
		want = append(want, fmt.Sprint(n))
	}
	c.holds("room", want...)
	c.holds("other", "3", "5", "7")
}

func (c *serverCheck) repeatAnywhere() {
	frames := []string{batchFrameOf(1, "room", "1", "2"), batchFrame(2, "other")}
	first := c.mouth()(batchOf(aProducer, frames...))
	c.expect("a batch", outcomesOf(first), "1:ok 2:ok")
	for _, way := range upForms {
		again := c.mouthOver(way, c.site)(batchOf(aProducer, repeats(frames...)...))
		if got := outcomesOf(again); got != "1:dup 2:dup" {
			c.fatalf("the same again %s: %q came, not \"1:dup 2:dup\"", way.name, got)
		}
		for i := range again.Published {
			c.expect("the position of the duplicate "+way.name, again.Published[i].Position, first.Published[i].Position)
		}
	}
	c.holds("room", "1", "2")
	c.holds("other", "2")
}

func (c *serverCheck) repeatAtAnotherNode() {
	first := c.mouth()(batchOf(aProducer, batchFrame(1, "room"), batchFrame(2, "other")))
	c.expect("a batch", outcomesOf(first), "1:ok 2:ok")
	say := c.mouthOver(c.form, c.another())
	again := say(batchOf(aProducer, append(repeats(batchFrame(1, "room"), batchFrame(2, "other")), batchFrame(3, "third"))...))
	if got, want := outcomesOf(again), "1:dup 2:dup 3:ok"; got != want {
		c.fatalf("the same again at another node, with one frame more: %q came, not %q", got, want)
	}
	c.expect("the position of the duplicate", again.Published[0].Position, first.Published[0].Position)
	c.expect("a lower number at another node", outcomesOf(say(batchOf(aProducer, batchFrame(2, "third")))), "2:stale")
	c.holds("room", "1")
	c.holds("third", "3")
}

func (c *serverCheck) refusedRepeatIsUnknown() {
	say := c.mouth()
	c.expect("a batch", outcomesOf(say(batchOf(aProducer, batchFrame(5, "stale")))), "5:ok")
	bad := repeats(batchFrame(1, "forbidden"), batchFrame(2, "own"), batchFrame(3, "\x01"), batchFrame(4, "stale"),
		`{"seq":5,"channel":"type","messages":[{"data":1,"type":"throughline.x"}]}`)
	c.expect("repeats that are refused now", outcomesOf(say(batchOf(aProducer, bad...))), "1:unknown 2:unknown 3:bad_channel 4:unknown 5:invalid")
	c.holds("stale", "5")
}

func (c *serverCheck) rememberedAsLongAsSaid() {
	open := c.lineOver(sessionWS, c.site, c.http, helloOf(1)).opened
	remembered := time.Duration(open.Remembered) * time.Millisecond
	if remembered <= 0 || remembered > 100*24*time.Hour {
		c.fatalf("the open says that producers are remembered for %d ms", open.Remembered)
	}
	way := byRequest // a line may be left in such a time
	first := c.mouthOver(c.form, c.site)(batchOf(aProducer, batchFrame(1, "room")))
	c.expect("a batch", outcomesOf(first), "1:ok")
	time.Sleep(remembered - time.Second)
	for n := range 20 { // what may have it forget
		c.mouthOver(way, c.site)(batchOf(fmt.Sprintf("%s%d", aProducer, n), batchFrame(1, "other")))
	}
	again := c.mouthOver(way, c.site)(batchOf(aProducer, repeats(batchFrame(1, "room"))...))
	c.expect(fmt.Sprintf("a repeat within the %v that the open says", remembered), outcomesOf(again), "1:dup")
	c.holds("room", "1")
}

func (c *serverCheck) refusedForGood() {
	say := c.mouth()
	c.expect("a batch", outcomesOf(say(batchOf(aProducer, batchFrame(5, "stale")))), "5:ok")
	large := batchFrameOf(6, "large", `"`+strings.Repeat("a", 1000)+`"`)
	it := say(batchOf(aProducer, batchFrame(1, "forbidden"), batchFrame(2, "own"), batchFrame(3, ""), batchFrame(4, "stale"),
		`{"seq":5,"channel":"type","messages":[{"data":1,"type":"open"}]}`, large, batchFrame(7, "room")))
	if got, want := outcomesOf(it), "1:forbidden 2:pay_first 3:bad_channel 4:stale 5:invalid 6:too_large 7:ok"; got != want {
		c.fatalf("%q came, not %q", got, want)
	}
	for _, o := range it.Published[:6] {
		if o.Error.Class != "never" || o.Position != "" || o.Duplicate {
			c.errorf("frame %d was refused with %s, and said to be of class %q, at %q, duplicate %t", o.Seq, o.Error.Code, o.Error.Class, o.Position, o.Duplicate)
		}
	}
	for _, channel := range []string{"forbidden", "own", "type", "large"} {
		c.holds(channel)
	}
	c.holds("stale", "5")
}

func (c *serverCheck) tooManyProducers() {
	say := c.mouth()
	first, second, third := "first"+aProducer, "second"+aProducer, "third"+aProducer
	for _, p := range []string{first, second} {
		c.expect("a producer within the bound", outcomesOf(say(batchOf(p, batchFrame(1, "room")))), "1:ok")
	}
	it := say(batchOf(third, batchFrame(1, "room"), batchFrame(2, "other")))
	if got, want := outcomesOf(it), "1:busy 2:ok"; got != want {
		c.fatalf("one producer more than are remembered: %q came, not %q", got, want)
	}
	if why := it.Published[0].Error; why.Class != "later" || why.After <= 0 {
		c.errorf("busy has the class %q and the delay %d ms, not later and some", why.Class, why.After)
	}
	c.expect("a repeat of one that is remembered", outcomesOf(say(batchOf(first, repeats(batchFrame(1, "room"))...))), "1:dup")
	c.expect("its next", outcomesOf(say(batchOf(second, batchFrame(2, "room")))), "2:ok")
	c.holds("room", "1", "1", "2")
}

func (c *serverCheck) producersOfRequestsAreOthers() {
	c.expect("a batch", outcomesOf(c.mouth()(batchOf(aProducer, batchFrame(1, "room")))), "1:ok")
	req, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.base+"/publish?channel=room", strings.NewReader("2"))
	if err != nil {
		c.fatalf("%v", err)
	}
	req.Header.Set("Idempotency-Key", aProducer)
	r, err := c.http.Do(req)
	if err != nil {
		c.fatalf("POST /publish was not answered: %v", err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusOK {
		c.errorf("POST /publish was answered %d", r.StatusCode)
	}
	c.holds("room", "1", "2")
}
