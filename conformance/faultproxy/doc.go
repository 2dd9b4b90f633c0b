// Package faultproxy is a proxy that misbehaves on order. It stands between
// clients and a server, as boxes of the real network do, and does to chosen
// requests what such boxes do: it cuts, stalls, buffers, refuses, goes silent.
//
// It speaks HTTP/1.1: answers with a length, in chunks or until the end of
// the connection, and upgrades, after which it passes bytes. What no [Rule] is
// for passes byte for byte, each piece as it comes. Each connection of
// a client has one of its own to the server, and what ends one ends the other.
//
// It works on any net.Listener and any way to dial, so it runs over TCP, and in
// bubbles of testing/synctest over a network in memory, where its times are
// exact. For a [Reset] it needs a connection with SetLinger, as TCP's has, or
// with a method Reset(); others are closed.
//
// Pipelining is not supported: a client that sends its next request early has
// it answered, but isn't missed when it leaves meanwhile.
package faultproxy
