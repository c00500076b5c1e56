package share

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// named gives places back by the name of who has them.
type named struct {
	*Pool[string]
	held map[string]*Held
}

func byName(p *Pool[string]) named { return named{p, map[string]*Held{}} }

func (n named) take(who string, most int) Verdict {
	held, verdict := n.Take(who, most)
	if verdict == Taken {
		n.held[who] = held
	}
	return verdict
}

func (n named) release(who string) { n.Release(n.held[who]) }

func TestOneHolderLeavesPlacesToOthers(t *testing.T) {
	t.Parallel()
	p := byName(NewPool[string](64, 32))
	greedy := 0
	for p.take("greedy", 0) == Taken {
		greedy++
	}
	if greedy != 32 {
		t.Errorf("alone, one holder got %d of 64", greedy)
	}
	for _, other := range []string{"b", "c", "d", "e"} {
		for i := range 8 {
			if v := p.take(other, 0); v != Taken {
				t.Errorf("%s was refused its %dth place: %d", other, i+1, v)
			}
		}
	}
	if v := p.take("f", 0); v != Full {
		t.Errorf("a place too many: %d", v)
	}
	p.release("b")
	if v := p.take("greedy", 0); v != OverShare {
		t.Errorf("the greedy one took what another gave back: %d", v)
	}
	if v := p.take("f", 0); v != Taken {
		t.Errorf("a newcomer was refused: %d", v)
	}
}

// A client that asks for files of one account alone leaves places to the account's other clients.
func TestOneClientLeavesPlacesToOthersOfItsAccount(t *testing.T) {
	t.Parallel()
	clients, accounts := byName(NewClients[string](64)), byName(NewAccounts(64))
	take := func(client string) (taken int) {
		for clients.take(client, 0) == Taken {
			if accounts.take("acme", 0) != Taken {
				clients.release(client)
				break
			}
			taken++
		}
		return taken
	}
	if one, another, third := take("one"), take("another"), take("third"); one != 32 || another != 8 || third != 8 {
		t.Errorf("%d, %d and %d of 64", one, another, third)
	}
	if v := accounts.take("other", 0); v != Taken {
		t.Errorf("another account was refused: %d", v)
	}
}

// A holder that may have less than its share gets that and no more, however much is free.
func TestAHolderHasItsOwnMost(t *testing.T) {
	t.Parallel()
	p := byName(NewPool[string](64, 32))
	for i := range 5 {
		if v, want := p.take("small", 3), []Verdict{Taken, Taken, Taken, OverShare, OverShare}[i]; v != want {
			t.Errorf("place %d: %d, want %d", i+1, v, want)
		}
	}
	p.release("small")
	if v := p.take("small", 3); v != Taken {
		t.Errorf("a place that was given back: %d", v)
	}
	if v := p.take("large", 1000); v != Taken {
		t.Errorf("another holder: %d", v)
	}
}

func TestSmallPools(t *testing.T) {
	t.Parallel()
	for places, alone := range map[int]int{0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 8: 4, 16: 8} {
		p, n := byName(NewPool[string](places, places/2)), 0
		for p.take("a", 0) == Taken {
			n++
		}
		if n != alone {
			t.Errorf("of %d places one holder got %d, want %d", places, n, alone)
		}
	}
}

// Whatever is taken and given back: the promises of the package hold, and nothing is left of who
// has gone.
func TestPoolOverRandomHolders(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	const places = 40
	p, held, taken := byName(NewPool[string](places, places/2)), map[string]int{}, 0
	for range 20_000 {
		who := strconv.Itoa(random.IntN(12))
		if random.IntN(3) == 0 {
			if held[who] > 0 {
				p.release(who)
				held[who]--
				taken--
			}
			continue
		}
		want := Taken
		switch {
		case taken == places:
			want = Full
		case held[who] >= places/8 && taken >= places/2:
			want = OverShare
		}
		if got := p.take(who, 0); got != want {
			t.Fatalf("%s with %d, of %d taken: %d, want %d", who, held[who], taken, got, want)
		}
		if want == Taken {
			held[who]++
			taken++
		}
	}
	for who, n := range held {
		for range n {
			p.release(who)
		}
	}
	for who, held := range p.Pool.held {
		if held.n != 0 {
			t.Errorf("%s has %d after all have gone", who, held.n)
		}
	}
	if p.Taken() != 0 {
		t.Errorf("%d taken after all have gone", p.Taken())
	}
}

// Those who have nothing any more are forgotten when there are many, and those who have something
// are not.
func TestPoolForgets(t *testing.T) {
	t.Parallel()
	p := NewPool[int](1<<20, 1<<20)
	for who := range 10 * leastHeld {
		held, _ := p.Take(who, 0)
		if who%10 != 0 {
			p.Release(held)
		}
	}
	if n := len(p.held); n > 3*leastHeld {
		t.Errorf("%d are remembered", n)
	}
	for who := range 10 * leastHeld {
		_, verdict := p.Take(who, 1)
		if want := who%10 == 0; (verdict == OverShare) != want {
			t.Fatalf("%d has something: %v, want %v", who, !want, want)
		}
	}
}
