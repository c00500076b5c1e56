package front

// Block is a field list that many replies share, in the forms in which it is sent. It never
// changes.
type Block struct {
	lines    []byte // of HTTP/1
	literals []byte // of HTTP/2
	dated    bool   // it has a Date
}

// NewBlock returns the block of a list, in the form of [Reply.Fields].
func NewBlock(list []byte) *Block {
	b := new(Block)
	b.lines, b.dated = appendFields(nil, list)
	b.literals, _ = appendBlock(nil, list)
	return b
}

// noBlock is that of an empty list.
var noBlock = NewBlock(nil)

// common returns the block of a reply.
func (r *Reply) common() *Block {
	if r.Block == nil {
		return noBlock
	}
	return r.Block
}
