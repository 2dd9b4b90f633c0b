package conformance

import "time"

var severalNodes = []Feature{Nodes}

// busyRoom is the channel in which much goes on.
const busyRoom = "busy room"

// What PROTOCOL.md promises when readers are slow, connections die, servers end, and nodes are several.
var troubleClauses = []serverClause{
	{
		id: "P6.15_LaggingNode", group: "nodes", over: allForms, needs: []Feature{Nodes, Lagging},
		text: "MUST: who comes to a node that has not seen its position yet hears of no loss: it waits, or is told to come back later, and then goes on.",
		run:  (*serverCheck).laggingNode,
	},
	{
		id: "P6.12_SwitchToSSE", group: "switch", over: sessionForms, needs: []Feature{SessionSSE}, clock: anyClock,
		text: "MUST: who goes to SSE and back, time and again while events are published, from the positions received, gets each event once and in order.",
		run:  func(c *serverCheck) { c.switchUnderTraffic(sessionSSE) },
	},
	{
		id: "P6.12_SwitchToWS", group: "switch", over: sessionForms, needs: []Feature{SessionWS}, clock: anyClock,
		text: "MUST: who goes to WebSocket and back, time and again while events are published, from the positions received, gets each event once and in order.",
		run:  func(c *serverCheck) { c.switchUnderTraffic(sessionWS) },
	},
	{
		id: "P6.12_SwitchToPoll", group: "switch", over: sessionForms, needs: []Feature{SessionPoll}, clock: anyClock,
		text: "MUST: who goes to long-poll and back, time and again while events are published, from the positions received, gets each event once and in order.",
		run:  func(c *serverCheck) { c.switchUnderTraffic(sessionPoll) },
	},
	{
		id: "P6.12_OldLineLeftOpen", group: "switch", over: sessionForms, clock: anyClock,
		text: "MUST: a line that a client left without closing it, and reads no more, keeps nothing from the line that it went to.",
		run:  (*serverCheck).oldLineLeftOpen,
	},
	{
		id: "P5.5_LostAnswerIsAskedForAgain", group: "lost answers", over: []form{plainPoll, sessionPoll}, clock: anyClock,
		text: "MUST: the answer to a poll that was lost on the way is given again to who asks again from the same position.",
		run:  (*serverCheck).lostAnswerIsAskedForAgain,
	},
	{
		id: "P5.5_AnswersAreLost", group: "lost answers", over: []form{plainPoll, sessionPoll}, clock: anyClock,
		text: "MUST: if every other answer to a poll is lost on the way while events are published, nothing is lost and nothing comes twice.",
		run:  (*serverCheck).answersAreLost,
	},
	{
		id: "P2.1_StalledReaderHoldsUpNobody", group: "slow readers", over: streamForms,
		text:  "MUST: beside a reader that reads nothing, publishing goes on at once, and other readers get each event at once.",
		setup: ServerSetup{WriteTimeout: 10 * time.Second},
		run:   (*serverCheck).stalledReaderHoldsUpNobody,
	},
	{
		id: "P8.3_StalledReaderIsBrokenOff", group: "slow readers", over: streamForms,
		text:  "MUST: what a reader that reads nothing is sent is bounded: its connection is broken off, and coming back it misses nothing.",
		setup: ServerSetup{WriteTimeout: 2 * time.Second, PeerTimeout: 10 * time.Minute},
		run:   (*serverCheck).stalledReaderIsBrokenOff,
	},
	{
		id: "P8.3_SlowReaderIsToldWhy", group: "slow readers", over: streamForms,
		text:  "MUST: a reader that falls ever further behind is ended with slow_consumer and the delay, in the words of its carrier; coming back it misses nothing.",
		setup: ServerSetup{WriteTimeout: 30 * time.Second, MaxLag: 10, EvictFor: 7 * time.Second},
		run:   (*serverCheck).slowReaderIsToldWhy,
	},
	{
		id: "P4.4_DeadPeerIsBrokenOff", group: "heartbeats", over: []form{plainWS, sessionWS},
		text:  "MUST: a WebSocket whose peer answers no ping is broken off without a word, and one whose peer does goes on.",
		setup: ServerSetup{Heartbeat: 5 * time.Second, PeerTimeout: 4 * time.Second},
		run:   (*serverCheck).deadPeerIsBrokenOff,
	},
	{
		id: "P4.4_AnyFrameIsASignOfLife", group: "heartbeats", over: []form{sessionWS},
		text:  "MUST: a WebSocket from which anything comes after a ping is not broken off.",
		setup: ServerSetup{Heartbeat: 5 * time.Second, PeerTimeout: 4 * time.Second},
		run:   (*serverCheck).anyFrameIsASignOfLife,
	},
	{
		id: "P6.3_SilentLineIsLeft", group: "proxies", over: sessionForms,
		text: "MUST: who leaves a line that fell silent amid a frame, of which nobody told the server, goes on from its positions and misses nothing.",
		run:  (*serverCheck).silentLineIsLeft,
	},
	{
		id: "P6.13_ReturnsAreSpread", group: "drain and restart", over: sessionForms,
		text: "SHOULD: the clients of a server that ends are told different times to come back.",
		run:  (*serverCheck).returnsAreSpread,
	},
	{
		id: "P3.11_DrainedStream", group: "drain and restart", over: []form{plainSSE},
		text: "MUST: a server that ends says retry with a delay on plain streams and ends their responses, and newcomers are answered 200 with the same.",
		run:  (*serverCheck).drainedStream,
	},
	{
		id: "P4.5_DrainedSocket", group: "drain and restart", over: []form{plainWS},
		text: "MUST: a server that ends closes plain WebSockets with 4001, shutdown and a delay in milliseconds.",
		run:  (*serverCheck).drainedSocket,
	},
	{
		id: "P5.4_DrainedPoll", group: "drain and restart", over: []form{plainPoll, sessionPoll},
		text: "MUST: a server that ends answers polls that wait, at once.",
		run:  (*serverCheck).drainedPoll,
	},
	{
		id: "P8.3_NewcomersAreSentElsewhere", group: "drain and restart",
		text: "MUST: a server that has ended refuses with 503 shutdown, class later, a delay and Retry-After.",
		run:  (*serverCheck).newcomersAreSentElsewhere,
	},
	{
		id: "P2.1_DrainLosesNothing", group: "drain and restart", over: allForms, needs: severalNodes,
		text: "MUST: when a server ends while events are published, who comes back to another when told to misses nothing, and nothing comes twice.",
		run:  (*serverCheck).drainLosesNothing,
	},
	{
		id: "P6.15_KilledNode", group: "nodes", over: allForms, needs: severalNodes, clock: anyClock,
		text: "MUST: when a node is gone without a word while events are published, another goes on from the positions received: nothing is lost, nothing comes twice.",
		run:  (*serverCheck).killedNode,
	},
	{
		id: "P6.15_NodesInTurn", group: "nodes", over: allForms, needs: severalNodes, clock: anyClock,
		text: "MUST: who reads at two nodes in turn, while events are published at both, gets each event once and in order.",
		run:  (*serverCheck).nodesInTurn,
	},
	{
		id: "P6.16_TokenHoldsAtAnotherNode", group: "nodes", over: sessionForms, needs: severalNodes, clock: anyClock,
		text: "MUST: a token of one node holds at another: the session goes on there, without another token.",
		run:  (*serverCheck).tokenHoldsAtAnotherNode,
	},
	{
		id: "P2.5_RestartThatLostEverything", group: "drain and restart", over: allForms, clock: anyClock, needs: []Feature{Several},
		text: "MUST: a server that lost its history answers each old position with a gap rewritten from there to the head, and goes on from there.",
		run:  (*serverCheck).restartThatLostEverything,
	},
	{
		id: "P2.1_CutAnywhere", group: "proxies", over: allForms, clock: anyClock,
		text: "MUST: wherever connections are cut, amid a head, a frame or between two, who goes on from the last thing that came whole misses nothing and gets nothing twice.",
		run:  (*serverCheck).cutAnywhere,
	},
	{
		id: "P6.15_RefusedOnTheWay", group: "proxies", over: allForms, clock: anyClock,
		text: "MUST: 502 and 503 by something on the way, between lines that hold for a while, lose nothing.",
		run:  (*serverCheck).refusedOnTheWay,
	},
	{
		id: "P6.15_UpgradeThatDies", group: "proxies", over: []form{plainWS, sessionWS}, clock: anyClock,
		text: "MUST: who goes on over another carrier when WebSockets are broken off right after their upgrade, or fall silent, misses nothing.",
		run:  (*serverCheck).upgradeThatDies,
	},
	{
		id: "P6.15_StreamsThatAreHeldBack", group: "proxies", over: []form{plainSSE, sessionSSE},
		text: "MUST: who goes on by polls when something on the way holds streams back until they end misses nothing, and polls come through.",
		run:  (*serverCheck).streamsThatAreHeldBack,
	},
	{
		id: "P5.3_ThroughHTTP10", group: "proxies", over: []form{plainSSE, plainPoll, sessionSSE, sessionPoll}, clock: anyClock,
		text: "MUST: streams and polls work through something that speaks HTTP/1.0.",
		run:  (*serverCheck).throughHTTP10,
	},
	{
		id: "P5.5_PollsThatAreDoubled", group: "proxies", over: []form{plainPoll, sessionPoll}, clock: anyClock,
		text: "MUST: polls that something on the way sends twice lose nothing, and nothing comes twice.",
		run:  (*serverCheck).pollsThatAreDoubled,
	},
	{
		id: "P9.6_CopyMadeOnTheWay", group: "proxies", over: []form{byRequest}, needs: publishing, clock: anyClock,
		text: "MUST: of a publish that something on the way doubles, one copy is appended: the channel has it once.",
		run:  (*serverCheck).copyMadeOnTheWay,
	},
	{
		id: "P9.6_LostAnswerOfAPublish", group: "lost answers", over: []form{byRequest}, needs: publishing, clock: anyClock,
		text: "MUST: a publish whose answer was lost on the way, or that was cut off, is in the channel once when it was repeated until it was answered.",
		run:  (*serverCheck).lostAnswerOfAPublish,
	},
	{
		id: "P7.3_CopyMadeOnTheWay", group: "proxies", needs: []Feature{PublishByRequest}, clock: anyClock,
		text: "MUST: a message with an Idempotency-Key that something on the way doubles is in the channel once.",
		run:  (*serverCheck).keyedCopyMadeOnTheWay,
	},
}
