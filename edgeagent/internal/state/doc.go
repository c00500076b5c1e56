// Package state keeps what an edge agent holds of the topology over restarts: a snapshot and
// journals in a folder, and the position, settings and digest that they end with.
//
// It owns the folder and the position. What a step means, and where it comes from, is its caller's
// business.
//
// What always holds: a step is there whole or not at all, wherever the process or the machine
// stops; what is read is checked against checksums and the digest, so damage is never taken for a
// topology; a disk that is full or broken costs durability and nothing else. docs/stream.md says
// what for.
package state
