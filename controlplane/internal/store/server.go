package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// statusTimeout bounds the question to one member how it is.
const statusTimeout = 2 * time.Second

// explainTimeout bounds the question why etcd does not answer.
const explainTimeout = 500 * time.Millisecond

// explain adds the reason to an error which says that etcd does not answer, as far as etcd's
// members say it at once.
func (s *Store) explain(ctx context.Context, err error) error {
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrUnknownOutcome) || errors.As(err, new(*UnavailableError)) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), explainTimeout)
	defer cancel()
	endpoints := s.client.Endpoints()
	answers := make(chan *clientv3.StatusResponse, len(endpoints))
	for _, endpoint := range endpoints {
		go func() {
			status, _ := s.client.Status(ctx, endpoint)
			answers <- status
		}()
	}
	up, led := 0, 0
	for range endpoints {
		if status := <-answers; status != nil {
			up++
			if status.Leader != 0 {
				led++
			}
		}
	}
	reason := "it answers too slowly"
	switch {
	case up == 0:
		reason = "no member of it can be reached"
	case led == 0:
		reason = "it has no leader, because too few of its members are up"
	}
	return &UnavailableError{Reason: reason, Err: err}
}

// oldest is the first version of etcd that has all that is used here: nested transactions and
// fragments of watches.
var oldest = version{3, 4, 0}

// version is a released version of etcd.
type version struct{ major, minor, patch int }

// parseVersion reads such as `3.5.9` or `3.7.0-rc.0`.
func parseVersion(text string) (v version, err error) {
	plain, _, _ := strings.Cut(text, "-")
	parts := strings.Split(plain, ".")
	if len(parts) != 3 {
		return v, fmt.Errorf("%q is no version", text)
	}
	for i, to := range []*int{&v.major, &v.minor, &v.patch} {
		if *to, err = strconv.Atoi(parts[i]); err != nil {
			return v, fmt.Errorf("%q is no version", text)
		}
	}
	return v, nil
}

func (v version) before(w version) bool {
	if v.major != w.major {
		return v.major < w.major
	}
	if v.minor != w.minor {
		return v.minor < w.minor
	}
	return v.patch < w.patch
}

// Fault is something known to be wrong with some versions of etcd.
type Fault struct {
	// What happens, and what of it matters here.
	What string
	// Issue is where etcd's developers describe it.
	Issue string
	// series maps a series of versions, by its minor number, to the first patch without the fault.
	series map[int]int
	// misorders says that a watch may report progress before it has sent the events up to there.
	misorders bool
}

// faults are those that can be met by what edgewalk does. Series that are not named do not have
// them.
var faults = []Fault{
	{
		What: "it says too early that a watch has delivered everything: deletions from before a start are not looked for, so edges " +
			"that were away meanwhile are sent the whole topology",
		Issue: "https://github.com/etcd-io/etcd/issues/15220", series: map[int]int{4: 25, 5: 8}, misorders: true,
	},
	{
		What:  "a member that is killed under load may come back with other data than the others: edges of two control planes may differ",
		Issue: "https://github.com/etcd-io/etcd/issues/13766", series: map[int]int{5: 3},
	},
}

// faultsOf returns what is known to be wrong with a version.
func faultsOf(v version) []Fault {
	var found []Fault
	for _, f := range faults {
		if fixed, known := f.series[v.minor]; v.major == 3 && known && v.patch < fixed {
			found = append(found, f)
		}
	}
	return found
}

// checkVersions says what is known to be wrong with the members that answer, and returns an error
// for one that cannot work. A member that does not answer may be any.
func (s *Store) checkVersions(ctx context.Context) error {
	endpoints := s.client.Endpoints()
	versions := make([]string, len(endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range endpoints {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, statusTimeout)
			defer cancel()
			if status, err := s.client.Status(ctx, endpoint); err == nil {
				versions[i] = status.Version
			}
		})
	}
	asked.Wait()
	s.misorders = false
	said := make(map[string]bool)
	for i, text := range versions {
		v, err := parseVersion(text)
		if err != nil {
			s.misorders = true
			continue
		}
		if v.before(oldest) {
			return fmt.Errorf("%w: %s has version %s", ErrServerTooOld, endpoints[i], text)
		}
		for _, f := range faultsOf(v) {
			s.misorders = s.misorders || f.misorders
			if !said[text+f.Issue] {
				s.log.WarnContext(ctx, "store: this version of etcd has a fault: update it", "version", text, "fault",
					f.What, "see", f.Issue)
			}
			said[text+f.Issue] = true
		}
	}
	return nil
}
