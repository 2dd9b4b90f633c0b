// Package limit says no in time: [Buckets] bound how often something is done
// by a key, [Slots] how much of it is going on at once, and [Proxies] tell the
// address of the client that the key is made of.
//
// Everything here is made for keys that strangers choose: nothing grows with
// their number beyond a stated bound, nothing runs in the background, and what
// is taken or refused allocates nothing once a key is known.
package limit
