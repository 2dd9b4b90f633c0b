package conformance_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
)

var sessionFaults = slices.Concat(helloFaults, channelFaults, ownerFaults, refusalFaults)

// lineSays changes what the server says by the session protocol.
func lineSays(change func(text string) string) testee.Rewriter {
	return testee.Rewriter{Down: func(s testee.Said) []string {
		if s.Plain {
			return []string{s.Text}
		}
		return []string{change(s.Text)}
	}}
}

// lineSaysInstead has the server say one thing for another.
func lineSaysInstead(old, other string) testee.Rewriter {
	return lineSays(func(text string) string { return strings.ReplaceAll(text, old, other) })
}

// lineNeverSays has the server leave out what holds a text. The answer to a poll is
// not left out.
func lineNeverSays(what string) testee.Rewriter {
	return testee.Rewriter{Down: func(s testee.Said) []string {
		if !s.Plain && s.Path != "poll" && strings.Contains(s.Text, what) {
			return nil
		}
		return []string{s.Text}
	}}
}

// lineHears changes what the server hears on its lines.
func lineHears(change func(text string) string) testee.Rewriter {
	return testee.Rewriter{Up: func(s testee.Said) []string {
		if s.Plain || s.Path == "up" || s.Path == "publish" {
			return []string{s.Text}
		}
		return []string{change(s.Text)}
	}}
}

// lineHearsInstead has the server take one thing for another.
func lineHearsInstead(old, other string) testee.Rewriter {
	return lineHears(func(text string) string { return strings.ReplaceAll(text, old, other) })
}

// lineTakes has the server take frames that are something for another.
func lineTakes(is func(text string) bool, other string) testee.Rewriter {
	return lineHears(func(text string) string {
		if is(text) {
			return other
		}
		return text
	})
}

func holding(what string) func(string) bool {
	return func(text string) bool { return strings.Contains(text, what) }
}

// garbage is what no server can read.
const garbage = "x"

// eachLine gives each line, or request, a Rewriter of its own, with what it
// remembers.
func eachLine(make func() testee.Rewriter) testee.Variant {
	return testee.Variant{Handler: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { make().Handler(next).ServeHTTP(w, r) })
	}}
}

// eachServer gives each server a Rewriter of its own.
func eachServer(make func() testee.Rewriter) testee.Variant {
	return testee.Variant{Handler: func(next http.Handler) http.Handler { return make().Handler(next) }}
}

// atTheDoor has a request done something to before it is served.
func atTheDoor(change func(w http.ResponseWriter, r *http.Request) (answered bool)) testee.Variant {
	return testee.Variant{Handler: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !change(w, r) {
				next.ServeHTTP(w, r)
			}
		})
	}}
}

func otherOptions(change func(*server.Options)) testee.Variant {
	return testee.Variant{Options: change}
}

// knows changes who the program says that a request is of.
func knows(change func(id server.Identity, err error) (server.Identity, error)) testee.Variant {
	return otherOptions(func(o *server.Options) {
		if was := o.Authenticate; was != nil {
			o.Authenticate = func(r *http.Request) (server.Identity, error) { return change(was(r)) }
		}
	})
}

// carried is a frame as its carrier has it.
func carried(s testee.Said, text string) string {
	if s.Path == "sse" {
		return "data: " + text
	}
	return text
}

var (
	aGap      = regexp.MustCompile(`\{"channel":"([^"]*)","gap":\{"from":"[^"]*","to":"([^"]*)"`)
	aHighLine = regexp.MustCompile(`"line":\d{3,},`)
)

// openSays has each open say another number.
func openSays(member string, change func(n int) int) testee.Rewriter {
	number := regexp.MustCompile(member + `\d+`)
	return lineSays(func(text string) string {
		if !strings.Contains(text, `"open":{`) {
			return text
		}
		return number.ReplaceAllStringFunc(text, func(said string) string {
			n, _ := strconv.Atoi(said[len(member):])
			return member + strconv.Itoa(change(n))
		})
	})
}

var anOpen = regexp.MustCompile(`^(data: )?\{"open"`)

var helloFaults = []serverFault{
	{
		name: "takes an empty frame for a hello", fails: "P6.1_HelloIsFirst",
		Rewriter: lineTakes(func(text string) bool { return text == "{}" }, `{"hello":{"version":1,"line":1}}`),
	},
	{
		name: "wants a channel where there is a list of them", fails: "P6.1_LittleIsNeeded",
		Rewriter: lineTakes(holding(`"channels":[]`), garbage),
	},
	{
		name: "wants a hello to be called JSON or text", fails: "P6.1_AnyContentType",
		Variant: atTheDoor(func(w http.ResponseWriter, r *http.Request) bool {
			odd := r.Header.Get("Content-Type") == "application/octet-stream" && !strings.HasSuffix(r.URL.Path, "/publish")
			if odd {
				w.WriteHeader(http.StatusUnsupportedMediaType)
				_, _ = w.Write([]byte(`{"error":{"code":"bad_request","class":"never"}}`))
			}
			return odd
		}),
	},
	{
		name: "takes the last of a channel for all of it", fails: "P6.1_EachChannelHasItsPlace",
		Rewriter: lineHears(func(text string) string {
			return regexp.MustCompile(`"after":"last=[1-9]\d?"`).ReplaceAllString(text, `"after":"earliest"`)
		}),
	},
	{
		name: "says another line's number", fails: "P6.3_OpenComesFirst P6.21_FirstFrameShowsWho P11.3_UnknownMembersAreIgnored P6.14_LastNameCounts",
		Rewriter: openSays(`"line":`, func(n int) int { return n + 1 }),
	},
	{
		name: "says open twice", fails: "P6.3_OpenComesFirst P6.21_FirstFrameShowsWho",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if anOpen.MatchString(s.Text) && s.Path != "poll" {
				return []string{s.Text, s.Text}
			}
			return []string{s.Text}
		}},
	},
	{
		name: "says the heartbeat in seconds", fails: "P6.3_OpenSaysTheBounds P6.5_SilentLineBeats",
		Rewriter: openSays(`"heartbeat":`, func(n int) int { return n / 1000 }),
	},
	{
		name: "says a larger limit than it has", fails: "P6.3_OpenSaysTheBounds",
		Rewriter: openSays(`"limit":`, func(n int) int { return 16 * n }),
	},
	{
		name: "promises to remember producers for longer than it does", fails: "P6.3_OpenSaysTheBounds P9.6_RememberedAsLongAsSaid",
		Rewriter: openSays(`"remembered":`, func(n int) int { return 3 * n / 2 }),
	},
	{
		name:  "brings a token with each open",
		fails: "P8.5_BrokenCarrierIsRefused P8.5_InsteadIsOpen P8.5_MayBeTriedAgain P8.5_OthersKeepTheirs P6.3_TokenOnlyIfAnother P6.16_SessionGoesOn P6.15_AnyNode P6.15_LosingALineLosesNothing P6.22_AskedInTime P10.5_ChangeOfLineDoesNotShow",
		Rewriter: lineSays(func(text string) string {
			if strings.Contains(text, `"token"`) || !strings.Contains(text, `"limit"`) {
				return text
			}
			return regexp.MustCompile(`("open":\{.*?"limit":\d+)`).ReplaceAllString(text, `$1,"token":"another"`)
		}),
	},
	{
		name: "has a limit for probes", fails: "P6.3_ProbesOpenIsBare",
		Rewriter: lineSays(func(text string) string {
			return regexp.MustCompile(`("open":\{"version":1,"line":\d+,"heartbeat":\d+)\}`).ReplaceAllString(text, `$1,"limit":65536}`)
		}),
	},
	{
		name: "breaks long frames of a stream in two lines", fails: "P6.4_StreamIsLinesOfJSON",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if s.Path == "sse" && !s.Plain && strings.Contains(s.Text, `"encoding":"base64"`) {
				return []string{strings.TrimSuffix(s.Text, "}") + "\ndata: }"}
			}
			return []string{s.Text}
		}},
	},
	{
		name: "puts two frames into a message", fails: "P6.4_MessageIsOneFrame",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if s.Path == "ws" && !s.Plain && strings.Contains(s.Text, `"encoding":"base64"`) && strings.Contains(s.Text, `"position"`) {
				return []string{s.Text + "{}"}
			}
			return []string{s.Text}
		}},
	},
	{
		name: "leaves out the gaps of a poll that has none", fails: "P6.4_PollAnswer",
		Rewriter: lineSaysInstead(`,"gaps":[]`, ``),
	},
	{
		name: "has ends in each answer", fails: "P6.4_PollAnswer",
		Rewriter: lineSaysInstead(`"gaps":[]}`, `"gaps":[],"ends":[]}`),
	},
	{
		name: "answers polls sooner than they ask", fails: "P6.4_PollWaits P5.2_Waits P10.3_SeenIsNotRepeated",
		Variant: otherOptions(func(o *server.Options) {
			if o.MaxWait > 0 {
				o.MaxWait = 5 * time.Second
			}
		}),
	},
	{
		name: "does not wait with paused channels", fails: "P6.4_PollWaits",
		Variant: atTheDoor(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost && r.URL.Query().Get("wait") != "" {
				text := new(bytes.Buffer)
				_, _ = text.ReadFrom(r.Body)
				r.Body = http.NoBody
				if body := text.String(); strings.Contains(body, `"paused":true`) {
					r.URL.RawQuery = ""
				}
				r.Body = readCloser{text}
			}
			return false
		}),
	},
	{
		name: "beats at once, without a ping", fails: "P6.5_FirstHeartbeat P6.5_PingGoesWithIt P6.7_ProbeLasts",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if anOpen.MatchString(s.Text) && s.Path != "poll" {
				return []string{s.Text, carried(s, "{}")}
			}
			return []string{s.Text}
		}},
	},
	{
		name:     "has no heartbeats",
		fails:    "P6.5_FirstHeartbeat P6.5_SilentLineBeats P6.5_PingGoesWithIt P6.7_ProbeLasts P6.8_ProbeBecomesLine P6.4_StreamIsLinesOfJSON P6.4_MessageIsOneFrame",
		Rewriter: testee.Rewriter{Down: withoutBeats(0)},
	},
	{
		name: "has one heartbeat, which proves the carrier, and no more", fails: "P6.5_SilentLineBeats P6.5_PingGoesWithIt",
		Variant: eachLine(func() testee.Rewriter { return testee.Rewriter{Down: withoutBeats(1)} }),
	},
	{
		name:     "takes a probe for a line",
		fails:    "P6.3_ProbesOpenIsBare P6.7_ProbeLasts P6.7_ProbeHasNoEffects P6.8_ProbeBecomesLine P6.21_FirstFrameShowsWho",
		Rewriter: lineHearsInstead(`"probe":true`, `"probe":false`),
	},
	{
		name: "lets a probing poll wait", fails: "P6.7_ProbingPoll",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			if s.Path == "poll" && strings.Contains(s.Text, `"probe":true`) {
				time.Sleep(5 * time.Second)
			}
			return []string{s.Text}
		}},
	},
	{
		name: "counts the numbers of probes", fails: "P6.7_ProbeHasNoEffects",
		Variant: eachServer(func() testee.Rewriter {
			var mu sync.Mutex
			probed := map[string]bool{}
			return lineHears(func(text string) string {
				mu.Lock()
				defer mu.Unlock()
				token := tokenIn.FindString(text)
				if strings.Contains(text, `"probe":true`) {
					probed[token] = token != ""
				} else if probed[token] {
					return garbage
				}
				return text
			})
		}),
	},
	{
		name:    "does not hear second hellos",
		fails:   "P6.8_ProbeBecomesLine P6.8_OtherHellosAreRefused P6.21_FirstFrameShowsWho",
		Variant: eachLine(func() testee.Rewriter { return testee.Rewriter{Up: oneHello()} }),
	},
	{
		name: "goes away without a word", fails: "P6.13_GoodbyeIsLast",
		Rewriter: lineSays(func(text string) string {
			text = regexp.MustCompile(`,"close":\{"code":"shutdown".*?\}`).ReplaceAllString(text, "")
			return strings.Replace(text, `{"close":{"code":"shutdown"`, `{"closing":{"code":"shutdown"`, 1)
		}),
	},
	{
		name: "says one delay in the last frame and another in the close frame", fails: "P6.13_GoodbyeIsLast",
		Rewriter: lineSays(func(text string) string {
			return regexp.MustCompile(`^(\{"close":\{"code":"shutdown".*?"after":)`).ReplaceAllString(text, "${1}1")
		}),
	},
}

// tokenIn finds the token of a hello or an open.
var tokenIn = regexp.MustCompile(`"token":"[^"\x00-\x1f]+"`)

type readCloser struct{ *bytes.Buffer }

func (readCloser) Close() error { return nil }

// withoutBeats leaves out heartbeats after so many.
func withoutBeats(most int) func(testee.Said) []string {
	return func(s testee.Said) []string {
		if beat := s.Text == carried(s, "{}"); beat && !s.Plain && s.Path != "up" {
			if most--; most < 0 {
				return nil
			}
		}
		return []string{s.Text}
	}
}

// oneHello leaves out hellos after the first.
func oneHello() func(testee.Said) []string {
	heard := false
	return func(s testee.Said) []string {
		if strings.HasPrefix(s.Text, `{"hello"`) {
			if heard {
				return nil
			}
			heard = true
		}
		return []string{s.Text}
	}
}

var channelFaults = []serverFault{
	{
		name:  "says nothing of channels that can't be",
		fails: "P6.9_EachChannelIsAnswered P6.10_SubscribeInFlight P6.10_EndedIsNotAcknowledged P11.2_PositionOfAnotherVersion",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if s.Path != "poll" && strings.Contains(s.Text, `{"channel":"odd`) && strings.Contains(s.Text, `"end":{"code":"bad_`) {
				return nil
			}
			return []string{s.Text}
		}},
	},
	{
		name: "opens what has a gap", fails: "P6.9_EachChannelIsAnswered P6.10_SubscribeInFlight P2.4_GapWhileReading P2.5_RewrittenTellsTheHead P2.6_OneGapOfSeveral",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if gap := aGap.FindStringSubmatch(s.Text); gap != nil && !s.Plain && s.Path != "poll" {
				return []string{s.Text, carried(s, `{"channel":"`+gap[1]+`","position":"`+gap[2]+`"}`)}
			}
			return []string{s.Text}
		}},
	},
	{
		name: "says that a channel is to be tried later as if for good", fails: "P6.9_RefusedAlone P8.1_RetryAfter P8.3_Rights",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			return []string{regexp.MustCompile(`"code":"full","class":"later","after":\d+`).ReplaceAllString(s.Text, `"code":"full","class":"never"`)}
		}},
	},
	{
		name: "allows a channel more", fails: "P6.9_OneTooMany P6.14_TooManyInAFrame",
		Variant: otherOptions(func(o *server.Options) {
			if o.MaxChannels > 0 {
				o.MaxChannels++
			}
		}),
	},
	{
		name:  "begins what is subscribed from now on",
		fails: "P6.10_SubscribeInFlight P6.10_UnsubscribedIsOver P6.18_PauseInFlight P6.19_GivenIsTheClients",
		Rewriter: lineHears(func(text string) string {
			if strings.HasPrefix(text, `{"subscribe"`) {
				text = strings.ReplaceAll(text, `"after"`, `"since"`)
			}
			return text
		}),
	},
	{
		name: "acknowledges an unsubscribe and goes on", fails: "P6.10_UnsubscribedIsOver P6.1_HelloIsFirst P6.14_TooManyWait",
		Variant: eachLine(func() testee.Rewriter { return goesOn("unsubscribe", "unsubscribed") }),
	},
	{
		name: "acknowledges a pause and goes on", fails: "P6.18_PauseInFlight",
		Variant: eachLine(func() testee.Rewriter { return goesOn("pause", "paused") }),
	},
	{
		name:  "acknowledges twice",
		fails: "P6.10_EndedIsNotAcknowledged P6.18_PausedIsTheClients P6.9_OneTooMany P6.14_TooManyWait",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if strings.Contains(s.Text, `"end":{"code":"unsubscribed"`) {
				return []string{s.Text, s.Text}
			}
			return []string{s.Text}
		}},
	},
	{
		name: "has no history for who comes back", fails: "P6.11_NewSetByNewRequest",
		Rewriter: lineHears(func(text string) string {
			if !strings.Contains(text, `"line":1,`) && tokenIn.MatchString(text) {
				text = strings.ReplaceAll(text, `"earliest"`, `"latest"`)
			}
			return text
		}),
	},
	{
		name: "goes on with channels that were left out", fails: "P6.11_NewSetByNewRequest",
		Rewriter: lineHearsInstead(`{"channel":"c","after":"earliest"}`, `{"channel":"c","after":"earliest"},{"channel":"b"}`),
	},
	{
		name: "takes a byte too many", fails: "P6.14_TooLong P6.3_OpenSaysTheBounds P8.3_NotUnderstood",
		Variant: otherOptions(func(o *server.Options) {
			if o.MaxFrame > 0 {
				o.MaxFrame++
			}
		}),
	},
	{
		name: "takes a byte too few", fails: "P6.14_TooLong P6.3_OpenSaysTheBounds",
		Variant: otherOptions(func(o *server.Options) {
			if o.MaxFrame > 0 {
				o.MaxFrame--
			}
		}),
	},
	{
		name: "reads the first JSON of a frame and forgets the rest", fails: "P6.14_MalformedHello P6.14_MalformedFrame",
		Rewriter: lineHears(func(text string) string {
			var first json.RawMessage
			if json.NewDecoder(strings.NewReader(text)).Decode(&first) == nil && len(text)-len(first) < 100 {
				return string(first)
			}
			return text
		}),
	},
	{
		name: "does not say what is wrong with a frame", fails: "P6.14_MalformedHello P6.14_MalformedFrame P6.8_OtherHellosAreRefused",
		Rewriter: lineSays(func(text string) string {
			return regexp.MustCompile(`("code":"bad_request","class":"never"),"message":".*"\}`).ReplaceAllString(text, "$1}")
		}),
	},
	{
		name: "refuses members that are named twice", fails: "P6.14_LastNameCounts",
		Rewriter: lineTakes(func(text string) bool { return strings.Count(text, `"line":`) > 1 }, garbage),
	},
	{
		name: "drops frames for which it has no time", fails: "P6.14_TooManyWait",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			if strings.HasPrefix(s.Text, `{"unsubscribe":["none `) {
				return nil
			}
			return []string{s.Text}
		}},
	},
	{
		name:  "forgets where a client was whose lines have high numbers",
		fails: "P6.15_LosingALineLosesNothing P6.15_AnyNode P6.17_HigherLineEndsLower",
		Rewriter: lineHears(func(text string) string {
			if aHighLine.MatchString(text) && tokenIn.MatchString(text) {
				text = strings.ReplaceAll(text, `"after"`, `"since"`)
			}
			return text
		}),
	},
	{
		name: "knows only the sessions of its own node", fails: "P6.15_AnyNode",
		Variant: otherOptions(func(o *server.Options) {
			o.Keys = []server.Key{{ID: "own", Secret: []byte(strconv.FormatInt(time.Now().UnixNano(), 10) + nodeSecret())}}
		}),
	},
	{
		name:     "takes no pause in a hello",
		fails:    "P6.18_PausedInHello P6.18_PausedIsTheClients P6.4_PollWaits",
		Rewriter: lineHearsInstead(`"paused":true`, `"paused":false`),
	},
}

// goesOn acknowledges a frame that it does not obey.
func goesOn(asked, code string) testee.Rewriter {
	var mu sync.Mutex
	frame := regexp.MustCompile(`^\{"` + asked + `":\["([^"]*)"\]\}$`)
	owed := ""
	return testee.Rewriter{
		Up: func(s testee.Said) []string {
			mu.Lock()
			defer mu.Unlock()
			named := frame.FindStringSubmatch(s.Text)
			if named == nil || owed != "" {
				return []string{s.Text}
			}
			owed = named[1]
			return nil
		},
		Down: func(s testee.Said) []string {
			mu.Lock()
			defer mu.Unlock()
			if owed == "" {
				return []string{s.Text}
			}
			name := owed
			owed = ""
			return []string{carried(s, `{"channel":"`+name+`","end":{"code":"`+code+`","class":"now"}}`), s.Text}
		},
	}
}

var nodes struct {
	sync.Mutex
	n int
}

// nodeSecret is another one at each call.
func nodeSecret() string {
	nodes.Lock()
	defer nodes.Unlock()
	nodes.n++
	return strings.Repeat(strconv.Itoa(nodes.n%10), 32)
}
