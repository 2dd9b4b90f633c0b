// Package cluster is many nodes on Redis, as they are in life: each a process that
// is killed with kill -9, each with a link of its own to Redis that is cut, delayed
// and deaf, before them a proxy that sends each connection to the next node, and
// behind them a primary and a replica. The tests need redis-server.
package cluster
