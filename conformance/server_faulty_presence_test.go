package conformance_test

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
)

// aStore is a store in which something is done in another way.
type aStore struct {
	session.Store
	present func(ctx context.Context, store session.Store, ch eventlog.Channel, most int) ([]session.Member, int, error)
}

// oblivious is a store in which leases have to run out.
type oblivious struct{ session.Store }

func (s oblivious) Release(ctx context.Context, held session.Held, idle time.Duration) (bool, error) {
	if idle > 0 {
		return false, nil
	}
	return s.Store.Release(ctx, held, idle)
}

func (s *aStore) Present(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
	return s.present(ctx, s.Store, ch, most)
}

// knowing is a server whose store says in a way of its own who is present.
func knowing(how func(ctx context.Context, store session.Store, ch eventlog.Channel, most int) ([]session.Member, int, error)) testee.Variant {
	return optionsOf(func(o *server.Options) { o.Store = &aStore{o.Store, how} })
}

var (
	seenSaid  = regexp.MustCompile(`,"seen":"[^"]*"`)
	pausedIn  = regexp.MustCompile(`\[\{"channel":"[^"]*","paused":true\},?`)
	tokenHere = regexp.MustCompile(`"token":"[^"]*","line"`)
	// storesSeen are the stores of servers that are not the first of their nodes.
	storesSeen sync.Map
)

var presenceFaults = []serverFault{
	{
		name: "adds what is watched to what was before", fails: "P10.1_AskedByFrame P10.1_AskedByNewRequest",
		Rewriter: hearsInstead(`"presence":[{"channel":"b"}]`, `"presence":[{"channel":"a"},{"channel":"b"}]`),
	},
	{
		name: "lets anybody see who is there", fails: "P10.1_NeedsItsRight P10.4_EndsAlone",
		Variant: optionsOf(func(o *server.Options) {
			ask := o.Authorize
			o.Authorize = func(ctx context.Context, who server.Identity, what server.Action, ch server.Channel) error {
				if what == server.Presence {
					return nil
				}
				return ask(ctx, who, what, ch)
			}
		}),
	},
	{
		name: "loses sight of who is there with the next look", fails: "P10.2_SnapshotThenDifferences P10.2_WhoIsIn (P10.5_AcrossNodes)",
		Variant: knowing(func(ctx context.Context, store session.Store, ch eventlog.Channel, most int) ([]session.Member, int, error) {
			members, total, err := store.Present(ctx, ch, most)
			if len(members) > 1 {
				members, total = members[:1], 1
			}
			return members, total, err
		}),
	},
	{
		name: "counts wrong", fails: "P10.2_SnapshotThenDifferences P10.3_SeenIsNotRepeated (P10.5_AcrossNodes) (P10.1_NeedsItsRight) (P10.4_EndsAlone)",
		Variant: knowing(func(ctx context.Context, store session.Store, ch eventlog.Channel, most int) ([]session.Member, int, error) {
			members, total, err := store.Present(ctx, ch, most)
			return members, total + 1, err
		}),
	},
	{
		name: "leaves out sessions that have paused", fails: "P10.2_WhoIsIn P6.4_PollWaits P6.18_PausedIsTheClients",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			return []string{pausedIn.ReplaceAllString(s.Text, "[")}
		}},
	},
	{
		name: "takes each line for a session of its own",
		fails: "P8.5_BrokenCarrierIsRefused P8.5_InsteadIsOpen P8.5_MayBeTriedAgain P8.5_OthersKeepTheirs P10.2_IdLastsAsLongAsItsSession P10.5_ChangeOfLineDoesNotShow P10.5_PollsArePresent P10.5_AcrossNodes P6.16_TokenHoldsAtAnotherNode " +
			"(P6.3_TokenOnlyIfAnother) (P6.15_LosingALineLosesNothing) (P6.16_SessionGoesOn) (P6.17_HigherLineEndsLower) (P6.22_AskedInTime) (P6.22_FreshLineGoesOn)",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			return []string{tokenHere.ReplaceAllString(s.Text, `"token":"","line"`)}
		}},
	},
	{
		name: "keeps to what it first said of a member", fails: "P10.2_ChangedIsAmongJoined",
		Variant: optionsOf(func(o *server.Options) {
			if o.OnConnect != nil {
				o.OnConnect = func(context.Context, server.Client) (server.Welcome, error) {
					return server.Welcome{Info: []byte(`{"by":"something"}`)}, nil
				}
			}
		}),
	},
	{
		name: "names however many there are", fails: "P10.2_ManyAreANumber",
		Variant: optionsOf(func(o *server.Options) { o.MaxPresent = 1000 }),
	},
	{
		name: "tells polls what they have seen", fails: "P10.3_SeenIsNotRepeated (P10.5_AcrossNodes)", // whose polls are answered at once, again and again
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string { return []string{seenSaid.ReplaceAllString(s.Text, "")} }},
	},
	{
		name: "ends the line with a presence that is refused", fails: "P10.4_EndsAlone",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if s.Path != "poll" && strings.Contains(s.Text, `"presence":{"end":`) {
				return []string{s.Text, `{"close":{"code":"forbidden","class":"never"}}`}
			}
			return []string{s.Text}
		}},
	},
	{
		name: "looks for who is there once a minute", fails: "P10.5_LeavesAfterItsGrace P10.5_AcrossNodes",
		Variant: optionsOf(func(o *server.Options) {
			if o.PresenceGrace > 0 {
				o.PresenceGrace, o.PresenceInterval = 3*time.Minute, time.Minute
			}
		}),
	},
	{
		name: "shows who comes a good while later", fails: "P10.5_ComesInTime P10.3_SeenIsNotRepeated P10.5_AcrossNodes",
		Variant: optionsOf(func(o *server.Options) {
			var mu sync.Mutex
			first := map[string]time.Time{}
			o.Store = &aStore{o.Store, func(ctx context.Context, store session.Store, ch eventlog.Channel, most int) (old []session.Member, total int, err error) {
				members, total, err := store.Present(ctx, ch, most)
				mu.Lock()
				defer mu.Unlock()
				for _, m := range members {
					if since, known := first[m.ID]; !known {
						first[m.ID] = time.Now()
					} else if time.Since(since) > 20*time.Second {
						old = append(old, m)
					}
				}
				return old, total - len(members) + len(old), err
			}}
		}),
	},
	{
		name: "has sessions gone with their lines", fails: "P10.5_LeavesAfterItsGrace P10.5_ChangeOfLineDoesNotShow P10.5_AcrossNodes",
		Variant: optionsOf(func(o *server.Options) {
			if o.PresenceGrace > 0 {
				o.PresenceGrace, o.PresenceInterval = time.Second, time.Second/3
			}
		}),
	},
	{
		name: "has leases run out, which others see later", fails: "P10.5_AcrossNodes P10.5_LeavesAfterItsGrace",
		Variant: optionsOf(func(o *server.Options) { o.Store = oblivious{o.Store} }),
	},
	{
		name: "takes a goodbye for any end of a line", fails: "P10.5_GoodbyeEndsItAtOnce",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			if s.Text == `{"close":{}}` {
				return nil
			}
			return []string{s.Text}
		}},
	},
	{
		name: "keeps its store to itself", fails: "P10.5_AcrossNodes P6.16_TokenHoldsAtAnotherNode",
		Variant: optionsOf(func(o *server.Options) {
			if _, another := storesSeen.LoadOrStore(o.Store, true); another {
				o.Store = nil
			}
		}),
	},
	{
		name:     "begins with who joined",
		fails:    "P10.2_SnapshotThenDifferences P10.6_BackGetsASnapshot (P10.5_AcrossNodes) (P10.1_NeedsItsRight) (P10.4_EndsAlone)",
		Rewriter: saysInstead(`"members":[`, `"joined":[`),
	},
}
