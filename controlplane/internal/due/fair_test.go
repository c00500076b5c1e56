package due_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane/internal/due"
	"github.com/edgewalk/edgewalk/internal/topology"
)

func entry(account, id string) *due.Entry {
	return &due.Entry{Key: topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: id}}
}

func number(t *testing.T, word string) int {
	t.Helper()
	n, err := strconv.Atoi(word)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Each script is run on a queue of three classes, in which 4 may be under way, and 2 of one
// account: `add class account/id...`, `next` until nothing may begin, with what begins behind it,
// `done account...`, `ahead account class` and `clear`.
func TestFairQueue(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"one account, in the order in which they came": `
			add 0 a/1 a/2 a/3
			next -> a/1 a/2
			next ->
			done a
			next -> a/3
			done a a
			next ->`,
		"accounts take turns": `
			add 0 a/1 a/2 a/3 b/1 c/1
			next -> a/1 b/1 c/1 a/2
			done b
			next ->
			done a
			next -> a/3`,
		"who comes later does not wait for the many of another": `
			add 0 a/1 a/2 a/3 a/4 a/5
			next -> a/1 a/2
			add 0 b/1
			next -> b/1
			done b a
			next -> a/3`,
		"a lower class comes first, if its accounts may": `
			add 2 a/new b/new
			add 1 a/retry1 a/retry2
			add 0 b/ends
			next -> b/ends a/retry1 a/retry2 b/new
			done a
			next -> a/new`,
		"an account with as many as it may have under way waits in every class": `
			add 0 a/1
			add 1 a/2 b/2
			add 2 a/3 b/3
			next -> a/1 a/2 b/2 b/3
			done a
			next -> a/3`,
		"in all": `
			add 0 a/1 b/1 c/1 d/1 e/1
			next -> a/1 b/1 c/1 d/1
			done c
			next -> e/1`,
		"what is under way outlives a clear": `
			add 0 a/1 a/2 a/3 b/1
			next -> a/1 b/1 a/2
			clear
			next ->
			add 0 a/4 c/1
			next -> c/1
			done a
			next -> a/4`,
		"those ahead": `
			ahead a 0 -> 0
			add 0 a/1 a/2 a/3 b/1
			ahead a 0 -> 4
			ahead b 0 -> 3
			ahead c 0 -> 2
			ahead c 2 -> 4
			add 1 a/4 a/5
			ahead c 1 -> 5
			ahead c 0 -> 2`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := due.NewFairQueue(3, 4, 2)
			waiting, running := 0, 0
			for line := range strings.Lines(strings.TrimSpace(script)) {
				command, want, _ := strings.Cut(strings.TrimSpace(line), " ->")
				words, got := strings.Fields(command), ""
				switch words[0] {
				case "add":
					for _, word := range words[2:] {
						account, id, _ := strings.Cut(word, "/")
						q.Add(entry(account, id), number(t, words[1]))
						waiting++
					}
				case "next":
					for e := q.Next(); e != nil; e = q.Next() {
						got += " " + e.Key.Account + "/" + e.Key.ID
						waiting--
						running++
					}
				case "done":
					for _, account := range words[1:] {
						q.Done(account)
						running--
					}
				case "clear":
					q.Clear()
					waiting = 0
				case "ahead":
					got = fmt.Sprint(" ", q.Ahead(words[1], number(t, words[2])))
				default:
					t.Fatalf("unknown command %q", line)
				}
				if got != want {
					t.Errorf("%s:%s, want%s", command, got, want)
				}
				if q.Len() != waiting || q.Running() != running {
					t.Errorf("%s: %d wait and %d are under way, want %d and %d", command, q.Len(), q.Running(),
						waiting, running)
				}
			}
		})
	}
}

// Of many accounts with many entries, each has one turn a round, and each entry one turn.
func TestFairQueueOfManyAccounts(t *testing.T) {
	t.Parallel()
	const accounts, each = 10_000, 10
	q := due.NewFairQueue(1, 1<<30, 1)
	for i := range accounts * each {
		q.Add(entry(fmt.Sprint("a", i/each), fmt.Sprint(i)), 0)
	}
	seen := map[string]bool{}
	for round := range each {
		n := 0
		var begun []string
		for e := q.Next(); e != nil; e = q.Next() {
			n++
			seen[e.Key.ID] = true
			begun = append(begun, e.Key.Account)
		}
		if n != accounts {
			t.Fatalf("round %d: %d accounts had a turn, want %d", round, n, accounts)
		}
		for _, account := range begun {
			q.Done(account)
		}
	}
	if len(seen) != accounts*each || q.Len() != 0 || q.Running() != 0 {
		t.Errorf("%d had a turn; %d wait, %d are under way", len(seen), q.Len(), q.Running())
	}
}
