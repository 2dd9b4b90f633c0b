package conformance

import (
	"context"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// LogSetup is what a clause needs of the log that is opened for it. What is
// zero is up to the log, but it keeps at least 1000 events and 4 MiB of
// a channel for an hour, and lets 100 producers append.
type LogSetup struct {
	// Retention holds for every channel.
	Retention eventlog.Retention
	// MaxData is the most bytes of data in a message.
	MaxData int
	// Generation is how long the place before a channel's first event stays.
	Generation time.Duration
	// RememberProducers is how long a producer is remembered.
	RememberProducers time.Duration
	// MaxProducersPerOwner and MaxProducersPerChannel bound how many are.
	MaxProducersPerOwner, MaxProducersPerChannel int
}

// TestLog runs every clause of the contract of [eventlog.Log]. open returns
// a new, empty log, which the suite closes.
//
// The clauses of the group "history" are for an [eventlog.History], and n/a for
// a log that is none.
//
// A log that doesn't take the time from this process may have the method
// Elapse(time.Duration), which is called wherever a clause lets time pass.
func TestLog(t *testing.T, open func(t *testing.T, s LogSetup) eventlog.Log) {
	for _, c := range logClauses {
		t.Run(c.id, func(t *testing.T) {
			failures, notFor := c.try(t, open)
			if notFor != "" {
				t.Logf("n/a: %s", notFor)
			}
			if len(failures) > 0 {
				t.Errorf("%s\n  %s", c.text, strings.Join(failures, "\n  "))
			}
		})
	}
}

// logClauses is the whole suite, in the order in which it is best read.
var logClauses = []logClause{
	{"L01_AppendReturnsLast", "append", "MUST: Append returns the position of the batch's last event, which is readable at once; offsets count from 1.", false, appendReturnsLast},
	{"L02_BatchIsWhole", "append", "MUST: a batch is appended whole or not at all.", false, batchIsWhole},
	{"L03_InvalidIsRefused", "append", "MUST: what Channel.Check or Batch.Check refuses fails with *Invalid and appends nothing.", false, invalidIsRefused},
	{"L04_MessagesUnchanged", "append", "MUST: an event is the message that was appended, its empty type filled in.", false, messagesUnchanged},
	{"L05_TimeNeverGoesBack", "append", "MUST: an event's Time is when it was appended and never goes back within a channel.", true, timeNeverGoesBack},
	{"L06_Marks", "append", "MUST: each event has a random mark of 1 to MarkBits bits, and Prev is the mark of the event before it.", false, marksAreRandom},
	{"L07_Expect", "append", "MUST: an append whose Expect is not the head fails with *Expectation, which tells the head, and appends nothing.", false, expectIsTheHead},
	{"L08_ExpectHasOneWinner", "append", "MUST: of concurrent appends that expect the same head one is appended.", false, expectHasOneWinner},
	{"L09_ConcurrentAppends", "append", "MUST: concurrent appends are all readable, each once, those of one caller in its order.", false, concurrentAppends},
	{"L10_EndedContext", "append", "MUST: a call whose context has ended fails, not with *Lost, and appends nothing.", false, endedContext},
	{"L11_ChannelsApart", "append", "MUST: channels, and equal names in different namespaces, have nothing to do with each other.", false, channelsApart},
	{"L12_Close", "append", "MUST: what is called after Close fails with ErrUnavailable.", false, closedIsUnavailable},
	{"L13_Info", "append", "MUST: Info tells the most bytes of data that are taken, and how long producers are remembered.", false, infoIsTrue},

	{"L20_PagesAreWhole", "read", "MUST: pages read one after the other hold each event after the position once, in order of offsets.", false, pagesAreWhole},
	{"L21_PagesAreBounded", "read", "MUST: a page holds at most Limit.Bytes (0 is 64 KiB), but at least one event if there is any.", false, pagesAreBounded},
	{"L22_NextAndHead", "read", "MUST: Next is the last event looked at, or the position given; Head is the channel's last position.", false, nextAndHead},
	{"L23_Behind", "read", "MUST: Behind is above zero before the head, falls as a reader goes on, and is zero at the head.", false, behindFalls},
	{"L24_PagesAreStable", "read", "MUST: a page is not changed by later appends, trims and reads, nor by what a reader does with its slice.", false, pagesAreStable},
	{"L25_Types", "read", "MUST: a page holds events of the wanted types only (\"\" is \"message\"), and the others move Next on.", false, typesAreFiltered},
	{"L26_ScanIsBounded", "read", "SHOULD: a filtered read looks through a bounded number of events.", false, scanIsBounded},
	{"L27_Seek", "read", "MUST: Seek finds the latest, the earliest, and the last N, and refuses what Start.Check does with *Invalid.", false, seekFinds},
	{"L28_SeekSince", "read", "MUST: Seek finds the first event that is not from before a time, or the earliest if it is trimmed, or the latest if there is none.", true, seekFindsSince},

	{"L30_PlaceBeforeFirst", "loss", "MUST: the place before a channel's first event has offset 0 and a mark that no other channel and no other log has.", false, placeBeforeFirst},
	{"L31_Rewritten", "loss", "MUST: a position that the history doesn't hold is *Lost, Rewritten, from itself to the head.", false, rewrittenIsSaid},
	{"L32_Trimmed", "loss", "MUST: a position before the last trimmed event is *Lost, Trimmed, from itself to that event, which is exact.", false, trimmedIsSaid},
	{"L33_RetentionBounds", "loss", "MUST: no more is kept than Retention says, but at least the last event of an append.", false, retentionBounds},
	{"L34_RetentionKeeps", "loss", "MUST: what is within Retention is not trimmed.", false, retentionKeeps},
	{"L35_Age", "loss", "MUST: an event that is too old is not returned, and one that is not is.", true, ageTrims},
	{"L36_HeadOutlivesEvents", "loss", "MUST: an empty channel keeps its head, and goes on from it.", true, headOutlivesEvents},
	{"L37_LostIsNotUnavailable", "loss", "MUST: *Lost and ErrUnavailable are never confused.", false, lostIsNotUnavailable},

	{"L40_PlaceMoves", "names", "MUST: an unborn channel's place moves with the generation: the one before is exact, an older one is Rewritten.", true, placeMoves},
	{"L41_PlacesKeptAtBirth", "names", "MUST: both places valid when the first event came stay exact, and no other becomes so.", true, placesKeptAtBirth},
	{"L42_RiseWakes", "names", "MUST: those who watch an unborn channel are woken when its place moves.", true, riseWakes},
	{"L43_ReadingCreatesNothing", "names", "MUST: Seek, Read and Watch create no channel.", true, readingCreatesNothing},
	{"L44_NamesAreDropped", "names", "SHOULD: the name of an empty channel is dropped some generations after its last event.", true, namesAreDropped},
	{"L45_DroppedIsNotConfused", "names", "MUST: a position of a channel that was dropped is *Lost in the one that took its name.", true, droppedIsNotConfused},
	{"L46_WatchedNameStays", "names", "MUST: a watched name is not dropped.", true, watchedNameStays},
	{"L47_ProducersKeepTheName", "names", "MUST: the name of a channel that remembers a producer is not dropped.", true, producersKeepTheName},

	{"L50_Duplicate", "producers", "MUST: an equal number is a duplicate, appends nothing and returns the first position, whatever else the batch says.", false, duplicateIsFirst},
	{"L51_Stale", "producers", "MUST: a lower number fails with ErrStale and appends nothing; a higher one is appended.", false, lowerIsStale},
	{"L52_ProducerScope", "producers", "MUST: numbers count per channel and namespace, and not per owner.", false, producerScope},
	{"L53_DuplicateHasOneWinner", "producers", "MUST: of concurrent appends of one number one is appended.", false, duplicateHasOneWinner},
	{"L54_RefusedIsNotCounted", "producers", "MUST: a number whose append was refused counts as never used.", false, refusedIsNotCounted},
	{"L55_Remembered", "producers", "MUST: a producer is remembered for the stated time after its last append, even if its events are gone.", true, producersAreRemembered},
	{"L56_Busy", "producers", "MUST: a new producer over a bound fails with ErrBusy and appends nothing, and nobody known is forgotten for it.", false, newProducersAreBusy},
	{"L57_BusyEnds", "producers", "SHOULD: room for new producers comes back when old ones may be forgotten.", true, busyEnds},

	{"L60_AppendWakes", "watch", "MUST: each append is followed by a wake, also in a channel that was unborn.", true, appendWakes},
	{"L61_WakeHoldsNoLock", "watch", "MUST: wake is called without a lock held: it may call the log.", true, wakeHoldsNoLock},
	{"L62_StopStops", "watch", "MUST: after stop, which may be called again, wake runs at most once more; other watchers stay.", true, stopStops},

	{"L70_PartsAreThere", "history", "MUST: a range holds the events after After up to Until, those of Since and before Before, and all that is kept without any of them; oldest first, or backwards.", true, partsAreThere},
	{"L71_PartsAreWhole", "history", "MUST: pages of a range that are read one after the other, with Next in place of the bound, hold each event once and in order, and the last of them says Done.", false, partsAreWhole},
	{"L72_PartsAreBounded", "history", "MUST: a page holds no more than Limit says, but at least one event if there is any.", false, partsAreBounded},
	{"L73_PartsAreFiltered", "history", "MUST: a range holds what the filter lets through, by type, tag and key, and what it leaves out moves Next on.", false, partsAreFiltered},
	{"L74_PartsScanABound", "history", "MUST: a page looks through no more than Limit.Scan, and may be empty then, but moves on.", false, partsScanABound},
	{"L75_PartsAreEvents", "history", "MUST: the events of a range are the ones that Read returns.", false, partsAreEvents},
	{"L76_PartsTellTheEnds", "history", "MUST: First is the place before the oldest event that is kept, and Head the newest event.", false, partsTellTheEnds},
	{"L77_PartsAreLost", "history", "MUST: a bound that has no place in the history that is still there is *Lost, as it is to Read.", false, partsAreLost},
	{"L78_PartsRefuse", "history", "MUST: a range that ends before it begins, a filter that is none and a channel that can't be fail with *Invalid, an ended context and a closed log not with *Lost.", false, partsRefuse},
	{"L79_PartsCreateNothing", "history", "MUST: to read a range of a channel that nobody wrote creates nothing, and both its places are exact.", true, partsCreateNothing},

	{"L90_Model", "model", "MUST: whatever happens, a reader gets every event once and in order, or *Lost, and *Lost only if something is.", true, modelHolds},
}

// A logClause is one sentence of the contract and how to test it.
type logClause struct {
	id, group, text string
	bubble          bool // run with fake time
	run             func(*logCheck)
}

// try runs a clause and returns how it failed, or why it is not for such a log.
func (c *logClause) try(t *testing.T, open func(*testing.T, LogSetup) eventlog.Log) (failures []string, notFor string) {
	// In real time, also for a bubble: its time stands still while somebody
	// waits for a mutex.
	hangs := time.AfterFunc(time.Minute, func() {
		debug.SetTraceback("all")
		panic("conformance: " + c.id + " hangs")
	})
	defer hangs.Stop()
	if !c.bubble {
		return c.attempt(t, open, 30*time.Second)
	}
	synctest.Test(t, func(t *testing.T) {
		failures, notFor = c.attempt(t, open, 365*24*time.Hour)
	})
	return failures, notFor
}

func (c *logClause) attempt(t *testing.T, open func(*testing.T, LogSetup) eventlog.Log, deadline time.Duration) (failures []string, notFor string) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	check := &logCheck{t: t, opener: open, ctx: ctx}
	defer func() {
		if r := recover(); r != nil && r != any(endOfCheck) {
			panic(r)
		}
		for _, l := range check.opened {
			_ = l.Close() // some clauses did already
		}
		failures, notFor = check.failures, check.notFor
	}()
	c.run(check)
	return nil, ""
}

// A logCheck is one run of a clause. It keeps failures to itself, so that the
// suite can be run against logs that must fail.
type logCheck struct {
	findings
	t      *testing.T
	opener func(*testing.T, LogSetup) eventlog.Log
	ctx    context.Context // ends at the clause's deadline
	opened []eventlog.Log
	notFor string // why the clause does not apply
}

func (c *logCheck) open(s LogSetup) eventlog.Log {
	l := c.opener(c.t, s)
	c.opened = append(c.opened, l)
	return l
}

// pass lets time pass. Only in a bubble.
func (c *logCheck) pass(l eventlog.Log, d time.Duration) {
	if e, ok := l.(interface{ Elapse(d time.Duration) }); ok {
		e.Elapse(d)
	}
	within(d, nil)
	synctest.Wait()
}

// within reports whether something comes within a time. Only in a bubble.
func within(d time.Duration, what <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-what:
		return true
	case <-timer.C:
		return false
	}
}
