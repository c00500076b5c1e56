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
	kept          int             // those that no pause of the machine delayed
	calm          []time.Duration // p99.9 of those
}

// calibrateRounds is for how many rounds the rate stays, which depends on how busy the machine is.
const calibrateRounds = 5

// latency measures how long hits take when clients ask at a steady rate, whatever the server does.
// A request counts from when it was due (open loop), so that a pause counts for all requests that
// it delays.
func latency(ctx context.Context, b *bench) error {
	loads, err := b.hitLoads(ctx)
	if err != nil {
		return err
	}
	if b.duration == 0 {
		b.duration = 2 * time.Second
	}
	if b.rounds == 0 {
		b.rounds = 25
	}
	l := loads[0]
	all := make([]timed, len(l.contenders))
	witnessed := true
	var rate float64
	var rates []float64
	for round := range b.rounds {
		if round%calibrateRounds == 0 {
			if rate, err = halfRate(ctx, &l); err != nil {
				return err
			}
			rates = append(rates, rate)
		}
		for i := range l.contenders {
			at := (i + round) % len(l.contenders)
			c := l.contenders[at]
			got, err := openLoop(ctx, c.address, l.path, rate, b.duration)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			witnessed = witnessed && got.witnessed
			m := &all[at]
			m.add(got, rate)
			b.note("%-9s %s at %.0f requests/s: p99.9 %s, without pauses %s", c.name, b.duration, rate,
				ms(m.top[round]), ms(m.calm[round]))
		}
	}
	t := newTable("latency: "+l.name+", open loop", "requests", "p50", "p99", "p99.9", "p99.9, least and most",
		"generator late, p99.9", "due in pauses", "p99.9 without those", "edgewalk/it, p99.9",
		"edgewalk/it, without those")
	part := fmt.Sprintf("hits of 1 KB, HTTP/1.1, %.0f a second, half of the maximum, open loop", median(rates))
	for _, name := range []string{"p50", "p99", "p99.9", "p99.9 without the machine's pauses"} {
		b.figures = append(b.figures, figure{part, name, map[string]string{}})
	}
	for i, c := range l.contenders {
		m, own := &all[i], &all[0]
		t.add(c.name, fmt.Sprint(m.requests), ms(median(m.p50)), ms(median(m.p99)), ms(median(m.top)),
			ms(quantile(m.top, 0))+", "+ms(quantile(m.top, 1)), ms(median(m.late)),
			fmt.Sprintf("%.1f %%", 100*float64(m.requests-m.kept)/float64(max(m.requests, 1))), ms(median(m.calm)),
			compared(own.top, m.top), compared(own.calm, m.calm))
		for at, took := range [][2][]time.Duration{
			{m.p50, own.p50}, {m.p99, own.p99}, {m.top, own.top}, {m.calm, own.calm},
		} {
			values := b.figures[at].values
			if values[c.name] = ms(median(took[0])); c.name == "nginx" {
				values[ratioOf] = compared(took[1], took[0])
			}
		}
	}
	t.print(b.out)
	fmt.Fprintf(b.out, "Medians of the %d rounds' quantiles, each of %s, in each of which all are asked one after the other, at about %.0f requests/s: half of what edgewalk or nginx can do at most, whichever is less; %d connections. A request counts from when it was due. A ratio is the median of those of the rounds, with the interval that holds it at 95 %%: if 1 is in that, the two are not told apart. %s\n",
		b.rounds, b.duration, median(rates), connections, saidOfPauses(witnessed))
	return nil
}

func saidOfPauses(witnessed bool) string {
	if !witnessed {
		return "A pause is when the generator did not look at its clock for a millisecond. Those of the server's core are not known, because their witness needs the right to real-time threads."
	}
	return "A pause is when the server's core did not even run a real-time thread for a millisecond, because the machine had given it to another one, or when the generator did not look at its clock for as long. It counts twice, because what came meanwhile has to be answered too."
}

// halfRate is half of what edgewalk or nginx can do at most, whichever is less: the same for all,
// so that they can be compared.
func halfRate(ctx context.Context, l *load) (rate float64, err error) {
	for _, c := range l.contenders {
		if c.name != "edgewalk" && c.name != "nginx" {
			continue
		}
		got, err := l.run(ctx, c.address, l.path, time.Second)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", c.name, err)
		}
		if rate == 0 || got.requests/2 < rate {
			rate = got.requests / 2
		}
	}
	return rate, nil
}

// add takes in what a round has found out.
func (m *timed) add(got *loopReport, rate float64) {
	var took, late []time.Duration
	for _, one := range got.asked {
		took, late = append(took, one.Took), append(late, one.Late)
	}
	calm := undisturbed(got.asked, float64(time.Second)/rate, got.pauses)
	m.requests += len(took)
	m.kept += len(calm)
	m.p50 = append(m.p50, median(took))
	m.p99 = append(m.p99, quantile(took, 0.99))
	m.top = append(m.top, quantile(took, 0.999))
	m.late = append(m.late, quantile(late, 0.999))
	m.calm = append(m.calm, quantile(calm, 0.999))
}

// compared says how ours are to theirs, round by round: what else the machine did in a round, it
// did to both.
func compared(ours, theirs []time.Duration) string {
	var ratios []float64
	for i := range min(len(ours), len(theirs)) {
		if ours[i] > 0 && theirs[i] > 0 { // else all of the round was a pause
			ratios = append(ratios, ours[i].Seconds()/theirs[i].Seconds())
		}
	}
	if len(ratios) == 0 {
		return "-"
	}
	low, high := medianWithin(ratios)
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median(ratios), low, high)
}
