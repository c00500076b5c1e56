package main

import (
	"iter"

	"go.yaml.in/yaml/v3"
)

// node is a part of the document. Order stays as it is.
type node struct{ *yaml.Node }

var nothing = node{new(yaml.Node)}

// at is what stands under keys, one in the other, or an empty node.
func (n node) at(keys ...string) node {
	for _, key := range keys {
		n = n.get(key)
	}
	return n
}

func (n node) get(key string) node {
	for k, v := range n.pairs() {
		if k == key {
			return v
		}
	}
	return nothing
}

// pairs are the keys and values of a mapping.
func (n node) pairs() iter.Seq2[string, node] {
	return func(yield func(string, node) bool) {
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, node{n.Content[i+1]}) {
				return
			}
		}
	}
}

// set puts a value under a key, instead of what is there.
func (n node) set(key string, value node) {
	if n.Node == nothing.Node {
		panic("nothing is where " + key + " should be")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = value.Node
			return
		}
	}
	n.Content = append(n.Content, text(key), value.Node)
}

// add puts a value at the end of a list, which is made if there is none.
func (n node) add(key string, value node) {
	list := n.get(key)
	if list.Node == nothing.Node {
		list = node{&yaml.Node{Kind: yaml.SequenceNode}}
		n.set(key, list)
	}
	list.Content = append(list.Content, value.Node)
}

// insert puts a key at a place.
func (n node) insert(place int, key string, value node) {
	rest := append([]*yaml.Node{text(key), value.Node}, n.Content[2*place:]...)
	n.Content = append(n.Content[:2*place:2*place], rest...)
}

func (n node) rename(from, to string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == from {
			n.Content[i] = text(to)
		}
	}
}

// remove takes items out of the list under a key.
func (n node) remove(key string, out func(node) bool) {
	list := n.get(key)
	var kept []*yaml.Node
	for _, item := range list.Content {
		if !out(node{item}) {
			kept = append(kept, item)
		}
	}
	list.Content = kept
}

// text is a key or a value that is a text, also where it looks like a number.
func text(value string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(value)
	if value != "" && value[0] >= '0' && value[0] <= '9' {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// parse reads a value of this program's own.
func parse(source string) node {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(source), &doc); err != nil || len(doc.Content) == 0 {
		panic("no YAML: " + source)
	}
	plain(doc.Content[0])
	return node{doc.Content[0]}
}

// plain has a value written in lines.
func plain(n *yaml.Node) {
	n.Style &^= yaml.FlowStyle
	for _, c := range n.Content {
		plain(c)
	}
}
