package conformance

import "slices"

// What §§6, 8 and 11 of PROTOCOL.md promise of the session protocol.
var sessionClauses = slices.Concat(
	helloClauses,
	probeClauses,
	channelClauses,
	ownerClauses,
	credentialClauses,
	refusalClauses,
	versionClauses,
)

// The session forms that push.
var sessionStreams = []form{sessionSSE, sessionWS}
