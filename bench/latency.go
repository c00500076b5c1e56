package main

import (
	"context"
	"fmt"
	"time"
)

// timed is how long requests took in each round.
type timed struct {
	requests      int
	p50, p99, top []time.Duration // top is p99.9
	late          []time.Duration // p99.9 of how late requests were noticed
	sent          []time.Duration // p99.9 without that
}

// latency measures how long hits take when clients ask at a steady rate, whatever the server does.
// A request counts from when it was due (open loop), so that a pause counts for all requests that
// it delays.
func latency(ctx context.Context, b *bench) error {
	loads, err := b.hitLoads(ctx)
	if err != nil {
		return err
	}
	if b.duration == 0 {
		b.duration = 10 * time.Second
	}
	if b.rounds == 0 {
		b.rounds = 5
	}
	l := loads[0]
	all := make([]timed, len(l.contenders))
	var rates []float64
	for round := range b.rounds {
		most := make([]float64, len(l.contenders))
		for i, c := range l.contenders {
			got, err := l.run(ctx, c.address, l.path, time.Second)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			most[i] = got.requests
		}
		for i := range l.contenders {
			at := (i + round) % len(l.contenders)
			c := l.contenders[at]
			rate := most[at] / 2
			for j, other := range l.contenders { // The same for both, so that they can be compared.
				if other.name == "edgewalk" || other.name == "nginx" {
					rate = min(rate, most[j]/2)
				}
			}
			rates = append(rates, rate)
			got, err := openLoop(ctx, c.address, l.path, rate, b.duration)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			m := &all[at]
			m.requests += len(got)
			var took, late, sent []time.Duration
			for _, one := range got {
				took, late, sent = append(took, one.Took), append(late, one.Late), append(sent, one.Took-one.Late)
			}
			m.late = append(m.late, quantile(late, 0.999))
			m.sent = append(m.sent, quantile(sent, 0.999))
			m.p50 = append(m.p50, median(took))
			m.p99 = append(m.p99, quantile(took, 0.99))
			m.top = append(m.top, quantile(took, 0.999))
			b.note("%-9s %s at %.0f requests/s: p99.9 %s, generator late by %s", c.name, b.duration, rate,
				ms(quantile(took, 0.999)), ms(quantile(late, 0.999)))
		}
	}
	t := newTable("latency: "+l.name+", open loop", "requests", "p50", "p99", "p99.9", "p99.9, least and most",
		"generator late, p99.9", "p99.9 without that")
	part := fmt.Sprintf("hits of 1 KB, HTTP/1.1, %.0f a second, half of the maximum, open loop", median(rates))
	for _, name := range []string{"p50", "p99", "p99.9"} {
		b.figures = append(b.figures, figure{part, name, map[string]string{}})
	}
	for i, c := range l.contenders {
		m, own := &all[i], &all[0]
		t.add(c.name, fmt.Sprint(m.requests), ms(median(m.p50)), ms(median(m.p99)), ms(median(m.top)),
			ms(quantile(m.top, 0))+", "+ms(quantile(m.top, 1)), ms(median(m.late)), ms(median(m.sent)))
		for at, took := range [][2][]time.Duration{{m.p50, own.p50}, {m.p99, own.p99}, {m.top, own.top}} {
			values := b.figures[at].values
			if values[c.name] = ms(median(took[0])); c.name == "nginx" {
				values[ratioOf] = ratio(median(took[1]).Seconds(), median(took[0]).Seconds())
			}
		}
	}
	t.print(b.out)
	fmt.Fprintf(b.out, "Medians of the %d rounds' quantiles, each of %s, taken in turn, at about %.0f requests/s: half of "+
		"what edgewalk or nginx can do at most, whichever is less; %d connections. A request counts from when it was due. "+
		"How late the generator noticed that is its own or the machine's part, and not the server's.\n",
		b.rounds, b.duration, median(rates), connections)
	return nil
}
