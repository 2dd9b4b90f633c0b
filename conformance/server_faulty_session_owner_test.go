package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

var ownerFaults = []serverFault{
	{
		name:     "begins a new session with each line",
		fails:    "P8.5_BrokenCarrierIsRefused P8.5_InsteadIsOpen P8.5_MayBeTriedAgain P8.5_OthersKeepTheirs P6.3_TokenOnlyIfAnother P6.16_SessionGoesOn P6.17_HigherLineEndsLower P6.17_LowerLineIsRefused P6.17_SupersededPoll P6.15_AnyNode P6.15_LosingALineLosesNothing P6.22_FreshLineGoesOn P8.2_NowIsAtOnce P10.5_ChangeOfLineDoesNotShow",
		Rewriter: lineHears(func(text string) string { return tokenIn.ReplaceAllString(text, `"token":""`) }),
	},
	{
		name: "refuses who brings a token that is none", fails: "P6.16_TokenThatDoesNotVerify",
		Rewriter: lineTakes(func(text string) bool {
			token := tokenIn.FindString(text)
			return token != "" && !strings.Contains(token, ".")
		}, garbage),
	},
	{
		name: "does not look at a token's version", fails: "P6.16_TokenThatDoesNotVerify P11.2_TokenOfAnotherVersion",
		Rewriter: lineHearsInstead(`"token":"~`, `"token":"a`),
	},
	{
		name: "lets in who shows a token", fails: "P6.16_TokenOpensNothing",
		Variant: testee.Variant{Handler: tokensAreCredentials},
	},
	{
		name: "supersedes without a word", fails: "P6.17_HigherLineEndsLower P6.16_SessionGoesOn",
		Rewriter: lineNeverSays(`{"close":{"code":"superseded"`),
	},
	{
		name: "forgets where a superseded poll was", fails: "P6.17_SupersededPoll",
		Rewriter: lineSays(func(text string) string {
			if strings.Contains(text, `"close":{"code":"superseded"`) {
				text = regexp.MustCompile(`"positions":\{[^}]*\}`).ReplaceAllString(text, `"positions":{}`)
			}
			return text
		}),
	},
	{
		name: "gives channels without an opening", fails: "P6.19_Given P6.19_GivenIsMarked P6.19_GivenIsTheClients",
		Rewriter: lineNeverSays(`"given":true`),
	},
	{
		name: "does not say that a channel is given", fails: "P6.19_GivenIsMarked",
		Rewriter: lineSaysInstead(`,"given":true`, ``),
	},
	{
		name: "takes channels away without a word", fails: "P6.19_TakenAway",
		Rewriter: lineNeverSays(`"end":{"code":"removed"`),
	},
	{
		name: "does not hear goodbyes", fails: "P6.20_GoodbyeEndsTheSession",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			if s.Path == "up" {
				return []string{aGoodbyeUp.ReplaceAllString(s.Text, `"close":{}`)}
			}
			return []string{strings.Replace(s.Text, `{"close":{}}`, `{"unsubscribe":[]}`, 1)}
		}},
	},
	{
		name: "takes everybody for ann", fails: "P6.21_HeaderShowsWho P6.21_FirstFrameShowsWho P6.16_TokenOpensNothing",
		Variant: knows(func(id server.Identity, err error) (server.Identity, error) {
			if id.Subject == "eve" {
				id.Subject = "ann"
			}
			return id, err
		}),
	},
	{
		name: "lets strangers in", fails: "P6.21_NobodyIsRefused P6.16_TokenOpensNothing P8.3_Identity P7.3_KeysOfSubjects",
		Variant: knows(func(id server.Identity, err error) (server.Identity, error) {
			if err != nil {
				return server.Identity{}, nil
			}
			return id, nil
		}),
	},
	{
		name: "refuses strangers before they say hello", fails: "P6.21_NobodyIsRefused P6.21_FirstFrameShowsWho P6.16_TokenOpensNothing",
		Variant: earlyDoor(),
	},
	{
		name: "does not look at credentials in a frame", fails: "P6.21_FirstFrameShowsWho P6.22_FreshFrameGoesOn P6.22_BadFreshOnes",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			if strings.HasPrefix(s.Text, `{"credentials"`) {
				return nil
			}
			return []string{s.Text}
		}},
	},
	{
		name:  "forgets that credentials end",
		fails: "P6.22_AskedInTime P6.22_FreshFrameGoesOn P6.22_FreshLineGoesOn P6.22_AskedOnEachLine P6.22_PlainStreamsEnd P8.3_Identity",
		Variant: knows(func(id server.Identity, err error) (server.Identity, error) {
			id.Expires = time.Time{}
			return id, err
		}),
	},
	{
		name: "asks for fresh credentials in seconds", fails: "P6.22_AskedInTime",
		Rewriter: lineSays(func(text string) string {
			return regexp.MustCompile(`("refresh":\{"left":\d+)\d{3}`).ReplaceAllString(text, "$1")
		}),
	},
	{
		name: "asks a session once for fresh credentials", fails: "P6.22_AskedOnEachLine",
		Variant: eachLine(func() testee.Rewriter {
			later := false
			return testee.Rewriter{
				Up: func(s testee.Said) []string {
					later = later || strings.Contains(s.Text, `"hello"`) && !strings.Contains(s.Text, `"line":1,`)
					return []string{s.Text}
				},
				Down: func(s testee.Said) []string {
					if !later || s.Plain {
						return []string{s.Text}
					}
					if strings.Contains(s.Text, `{"refresh"`) {
						return nil
					}
					return []string{strings.Replace(s.Text, `"refresh"`, `"fresh"`, 1)}
				},
			}
		}),
	},
}

var aGoodbyeUp = regexp.MustCompile(`"close":\{"line":\d+\}`)

// earlyDoor refuses who shows nothing when the handshake of a WebSocket comes,
// where the program wants to know.
func earlyDoor() testee.Variant {
	var wants atomic.Bool
	v := atTheDoor(func(w http.ResponseWriter, r *http.Request) bool {
		stranger := wants.Load() && r.Header.Get("Upgrade") != "" && r.Header.Get("Authorization") == ""
		if stranger {
			w.WriteHeader(http.StatusUnauthorized)
		}
		return stranger
	})
	v.Options = func(o *server.Options) { wants.Store(o.Authenticate != nil) }
	return v
}

// tokensAreCredentials has who shows a token, and nothing else, count as who it
// was made for.
func tokensAreCredentials(next http.Handler) http.Handler {
	var mu sync.Mutex
	owners := map[string]string{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown := r.Header.Get("Authorization")
		if r.Method == http.MethodPost && shown == "" {
			text := new(bytes.Buffer)
			_, _ = text.ReadFrom(r.Body)
			mu.Lock()
			if owner := owners[tokenIn.FindString(text.String())]; owner != "" {
				r.Header.Set("Authorization", owner)
			}
			mu.Unlock()
			r.Body = readCloser{text}
		}
		lineSays(func(text string) string {
			if token := tokenIn.FindString(text); token != "" && shown != "" {
				mu.Lock()
				owners[token] = shown
				mu.Unlock()
			}
			return text
		}).Handler(next).ServeHTTP(w, r)
	})
}

var anyVersion = regexp.MustCompile(`"version":\d+`)

// raisesNumbers takes a producer's number that is lower than its last for the
// next one.
func raisesNumbers() testee.Variant {
	var mu sync.Mutex
	last := map[string]int{}
	return atTheDoor(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		key := r.Header.Get("Idempotency-Key") + " " + r.URL.RawQuery
		n, err := strconv.Atoi(r.Header.Get("Producer-Seq"))
		if err == nil && n > 0 && n < last[key] {
			n = last[key] + 1
			r.Header.Set("Producer-Seq", strconv.Itoa(n))
		}
		last[key] = n
		return false
	})
}

var refusalFaults = []serverFault{
	{
		name: "has a delay for those who are not to come back", fails: "P8.1_RefusalsOverHTTP P8.3_NotUnderstood P11.1_HeadHasAVersion P11.2_PositionOfAnotherVersion P3.2_StartsForSeveral P3.8_VectorOfAnotherList",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			return []string{regexp.MustCompile(`^(\{"error":\{"code":"bad_(?:position|version)","class":"never")`).ReplaceAllString(s.Text, `$1,"after":1000`)}
		}},
	},
	{
		name: "says delays in seconds", fails: "P8.1_RetryAfter P8.3_Unavailable P8.3_Shutdown P7.4_Busy P7.4_Unavailable",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			return []string{regexp.MustCompile(`("error":\{"code":"[a-z]*","class":"later","after":\d+)\d{3}`).ReplaceAllString(s.Text, "$1")}
		}},
	},
	{
		name: "gives in to who asks again", fails: "P8.2_NeverStaysSo",
		Variant: eachServer(func() testee.Rewriter {
			var mu sync.Mutex
			asked := map[string]int{}
			return lineHears(func(text string) string {
				mu.Lock()
				defer mu.Unlock()
				if asked[text]++; asked[text] > 2 && strings.HasPrefix(text, `{"hello"`) {
					return anyVersion.ReplaceAllString(text, `"version":1`)
				}
				return text
			})
		}),
	},
	{
		name: "keeps out who came with a low line", fails: "P8.2_NowIsAtOnce",
		Variant: eachServer(func() testee.Rewriter {
			var mu sync.Mutex
			low := false
			return lineHears(func(text string) string {
				mu.Lock()
				defer mu.Unlock()
				fourth := strings.Contains(text, `"line":4,`)
				if fourth && low && strings.Contains(text, `"token":""`) {
					return garbage
				}
				low = low || fourth
				return text
			})
		}),
	},
	{
		name: "does not know methods", fails: "P8.3_NotUnderstood",
		Variant: atTheDoor(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodDelete {
				w.WriteHeader(http.StatusNotImplemented)
			}
			return r.Method == http.MethodDelete
		}),
	},
	{
		name: "lets foreign pages in", fails: "P8.3_NotUnderstood",
		Variant: atTheDoor(func(_ http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Origin")
			return false
		}),
	},
	{
		name: "takes what is compressed as it is", fails: "P8.3_NotUnderstood",
		Variant: atTheDoor(func(_ http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Content-Encoding")
			return false
		}),
	},
	{
		name: "takes lower numbers of a producer for its messages", fails: "P8.3_Publishing",
		Variant: raisesNumbers(),
	},
	{
		name: "has no codes of the program's own", fails: "P8.3_Rights P6.9_RefusedAlone P9.4_AnEntryForEach P9.7_RefusedForGood",
		Variant: otherOptions(func(o *server.Options) {
			ask := o.Authorize
			o.Authorize = func(ctx context.Context, who server.Identity, what server.Action, ch server.Channel) error {
				err := ask(ctx, who, what, ch)
				if r, ok := errors.AsType[*transport.Refusal](err); ok && r.Class == transport.Never {
					return transport.Refuse(transport.CodeForbidden, "no")
				}
				return err
			}
		}),
	},
	{
		name: "says for good that the log does not answer", fails: "P8.3_Unavailable P7.4_Unavailable (P6.15_LaggingNode)",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			return []string{regexp.MustCompile(`^(data: )?(\{"(?:error|close)":\{"code":"unavailable","class":)"later"`).ReplaceAllString(s.Text, `$1$2"never"`)}
		}},
	},
	{
		name: "tells newcomers that it is gone for good", fails: "P8.3_Shutdown",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			return []string{strings.ReplaceAll(s.Text, `{"error":{"code":"shutdown","class":"later"`, `{"error":{"code":"shutdown","class":"never"`)}
		}},
	},
	{
		name: "has those come back that the program ended", fails: "P8.3_Disconnected",
		Rewriter: lineSaysInstead(`"code":"disconnected","class":"never"`, `"code":"disconnected","class":"now"`),
	},
	{
		name: "does not say which versions it speaks", fails: "P6.2_OtherVersionsAreRefused P11.1_VersionIsFirst P11.1_HeadHasAVersion P8.3_NotUnderstood",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			return []string{strings.ReplaceAll(s.Text, `,"versions":[1]`, ``)}
		}},
	},
	{
		name: "reads the whole hello before its version", fails: "P11.1_VersionIsFirst",
		Rewriter: lineTakes(func(text string) bool {
			var f struct {
				Hello struct {
					Line     uint64
					Token    string
					Channels []struct{ Channel string }
				}
			}
			return !strings.Contains(text, `"version":1`) && strings.HasPrefix(text, `{"hello"`) && json.Unmarshal([]byte(text), &f) != nil
		}, garbage),
	},
	{
		name: "does not look at a head's version", fails: "P11.1_HeadHasAVersion P9.1_WhatCantBeRead",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			return []string{regexp.MustCompile(`"up":\{"version":[29]`).ReplaceAllString(s.Text, `"up":{"version":1`)}
		}},
	},
	{
		name: "does not look at a position's version", fails: "P11.2_PositionOfAnotherVersion P1.5_Forged",
		Rewriter: lineHearsInstead(`"after":"~`, `"after":"a`),
	},
	{
		name: "refuses members it does not know", fails: "P11.3_UnknownMembersAreIgnored P11.3_UnknownMembersOfRequests",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			if strings.Contains(s.Text, `"later":`) {
				return []string{garbage}
			}
			return []string{s.Text}
		}},
	},
}
