package store

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// tip is the record that each write of the topology leaves beside what it changes. etcd counts the
// versions of a key, so tips number those writes without a gap: a follower that has received a tip
// and all before it has received the whole topology, and a missing number is a missing write. Each
// has a random id, so that no two histories have the same.
//
// It does not depend on what etcd says of a watch's progress, which some versions say too early;
// see [Fault].
type tip struct {
	id       string
	revision int64 // 0 when there is none
	version  int64
}

func tipOf(kv *mvccpb.KeyValue) tip {
	return tip{id: string(kv.Value), revision: kv.ModRevision, version: kv.Version}
}

// exists reports whether there is a tip: not before the first write, nor after one that had no
// space for it.
func (t tip) exists() bool { return t.revision != 0 }

// follows reports whether t is the write right after another.
func (t tip) follows(before tip) bool { return t.version == before.version+1 }

// putTip is part of each transaction that changes what edges see.
func (s *Store) putTip(id string) clientv3.Op { return clientv3.OpPut(s.keys.tip(), id) }

// dropTip is used where etcd has no space, so that no follower takes an older tip for the newest.
func (s *Store) dropTip() clientv3.Op { return clientv3.OpDelete(s.keys.tip()) }
