package topology

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// Digest is the sum, modulo 2^128 and little-endian, of a hash of every record of a topology. Order
// does not count, so both sides keep it by addition and subtraction. The zero value is the digest
// of nothing.
type Digest [16]byte

// Add counts a record in. A deleted record, with nil Value, counts nothing.
func (d *Digest) Add(r Record) {
	if r.Value == nil {
		return
	}
	lo, hi := r.hash()
	var carry uint64
	lo, carry = bits.Add64(binary.LittleEndian.Uint64(d[:8]), lo, 0)
	hi, _ = bits.Add64(binary.LittleEndian.Uint64(d[8:]), hi, carry)
	d.set(lo, hi)
}

// Remove takes out a record that was added, with the revision and value it had then.
func (d *Digest) Remove(r Record) {
	if r.Value == nil {
		return
	}
	lo, hi := r.hash()
	var borrow uint64
	lo, borrow = bits.Sub64(binary.LittleEndian.Uint64(d[:8]), lo, 0)
	hi, _ = bits.Sub64(binary.LittleEndian.Uint64(d[8:]), hi, borrow)
	d.set(lo, hi)
}

func (d *Digest) set(lo, hi uint64) {
	binary.LittleEndian.PutUint64(d[:8], lo)
	binary.LittleEndian.PutUint64(d[8:], hi)
}

// hash is the first 16 bytes of SHA-256 over uvarint(len(key)), key, mod revision as 8 bytes
// little-endian, value.
func (r Record) hash() (lo, hi uint64) {
	key := r.Key.String()
	head := make([]byte, 0, 128)
	head = binary.AppendUvarint(head, uint64(len(key)))
	head = append(head, key...)
	head = binary.LittleEndian.AppendUint64(head, uint64(r.ModRevision))
	h := sha256.New()
	h.Write(head)
	h.Write(r.Value)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:16])
}
