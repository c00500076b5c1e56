package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// sample is how many of the objects have to be hits for a cache to count as being back.
const sample = 200

// restart measures how soon hits come back.
func restart(ctx context.Context, b *bench) error {
	if b.rounds == 0 {
		b.rounds = 3
	}
	o, err := b.newOrigin(false)
	if err != nil {
		return err
	}
	f, e, err := b.singleEdge(ctx, noCore, o)
	if err != nil {
		return err
	}
	nginx, err := b.startNginx(ctx, noCore, o)
	if err != nil {
		return err
	}
	restarts := []restarted{
		{"edgewalk, stopped in order", e.http, func() *process { return e.process }, (*process).stop,
			func() error { return f.run("edge", e) }},
		{"edgewalk, kill -9", e.http, func() *process { return e.process }, (*process).kill,
			func() error { return f.run("edge", e) }},
	}
	if nginx != nil {
		again := func() (err error) {
			nginx.process, err = b.start("nginx", noCore, nginx.args[0], nginx.args[1:]...)
			return err
		}
		restarts = append(
			restarts,
			restarted{
				"nginx, stopped in order", nginx.http, func() *process { return nginx.process }, (*process).stop, again,
			},
		)
	}
	for _, r := range restarts[1:] {
		if _, err := fill(ctx, r.address, b.objects); err != nil {
			return err
		}
	}
	t := newTable("restart: time from exec", "objects", "first hit", strconv.Itoa(sample)+" random hits",
		"hits among the first "+strconv.Itoa(sample))
	part := fmt.Sprintf("from exec to the first hit, with %d objects in the cache", b.objects)
	figures := []figure{{part, "stopped in order", map[string]string{}}, {part, "kill -9", map[string]string{}}}
	for at, r := range restarts {
		var first, all []time.Duration
		var share []int
		for range b.rounds {
			r.end(r.process())
			if err := r.again(); err != nil {
				return err
			}
			got, err := b.comeBack(ctx, r)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			first, all, share = append(first, got.first), append(all, got.all), append(share, got.share)
		}
		t.add(r.name, strconv.Itoa(b.objects), ms(median(first)), ms(median(all)), strconv.Itoa(median(share)))
		if server, how, _ := strings.Cut(r.name, ", "); server == "edgewalk" {
			figures[at].values[server] = ms(median(first))
		} else if how == figures[0].what {
			figures[0].values[server] = ms(median(first))
		}
	}
	b.figures = figures
	t.print(b.out)
	return nil
}

// restarted is a server, how it is stopped and how it is started again.
type restarted struct {
	name    string
	address string
	process func() *process
	end     func(*process)
	again   func() error
}

// back says how a server came back: when the first object was a hit, when a sample had been asked
// for and was, and how many of the sample were.
type back struct {
	first, all time.Duration
	share      int
}

// comeBack asks a server that was just started for objects it has.
func (b *bench) comeBack(ctx context.Context, r restarted) (got back, err error) {
	started := r.process().started
	var c *client
	err = until(30*time.Second, time.Millisecond, func() (bool, error) {
		if r.process().ended() {
			return false, errors.New("ended by itself: " + r.process().tail())
		}
		var err error
		c, err = dial(r.address)
		return err == nil, nil
	})
	if err != nil {
		return got, err
	}
	defer c.close()
	for i := range sample {
		reply, err := c.get(objectPath(rand.IntN(b.objects)))
		if err != nil {
			return got, err
		}
		if isHit(reply.head) {
			if got.share++; got.share == 1 {
				got.first = time.Since(started)
			}
		}
		b.note("restart %s: object %d of the sample: hit %v after %s", r.name, i, isHit(reply.head),
			time.Since(started))
	}
	got.all = time.Since(started)
	return got, ctx.Err()
}
