package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
)

// The history of an account is its steps, each with what it takes to undo it: undoing them one by
// one, from the current state, gives the account as it was. A step lies at `history/{account}/{n}`
// and the event of a write at `audit/{account}/{n}`; the account's guard counts both, so that a
// write needs no other read for them, and a step that is missing shows. Keys count down, so that
// the newest come first. Both are put by the transaction that they describe.
const (
	// stepsKept and eventsKept are how many of each an account keeps, and keptFor for how long.
	stepsKept  = 1000
	eventsKept = 100_000
	keptFor    = 90 * 24 * time.Hour
	// trimEvery is how many are written until those beyond are removed.
	trimEvery = 16
	// maxImages bounds what a step keeps of what it replaced, compressed.
	maxImages = 300 << 10
	// maxFields bounds the fields that an event lists.
	maxFields = 96 << 10
	// maxRequest bounds a transaction: etcd takes requests of 1.5 MiB. Of that, MaxBytes are for
	// the write itself; what a step keeps of what it replaced has what is left beside that, what
	// the write depends on, and its event.
	maxRequest = 1500 << 10
	// lastNumber is above all numbers, which begin with milliseconds since 1970.
	lastNumber = 9_999_999_999_999_999
)

func (l layout) steps(account string) string         { return l.prefix + "history/" + account + "/" }
func (l layout) step(account string, n int64) string { return numbered(l.steps(account), n) }
func (l layout) audits(account string) string        { return l.prefix + "audit/" + account + "/" }
func (l layout) audit(account string, n int64) string {
	return numbered(l.audits(account), n)
}

func numbered(folder string, n int64) string { return fmt.Sprintf("%s%016d", folder, lastNumber-n) }

// numberOf is the inverse of numbered.
func numberOf(folder string, key []byte) (int64, error) {
	rest, ok := bytes.CutPrefix(key, []byte(folder))
	var n int64
	if _, err := fmt.Sscanf(string(rest), "%016d", &n); !ok || len(rest) != 16 || err != nil {
		return 0, fmt.Errorf("%w: %q has no number", ErrBroken, key)
	}
	return lastNumber - n, nil
}

// after returns the number behind n. The first of an account, or of one that has lost its guard, is
// above all that any account of its id has had before.
func (s *Store) after(n int64) int64 {
	if n == 0 {
		return s.now().UnixMilli()
	}
	return n + 1
}

var (
	encoder = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	})
	decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	})
)

// remember adds the step and the event of a plan to its operations, and counts them in the new
// guard.
func (s *Store) remember(p *plan, req RequestID, edit *Edit, left *guard) error {
	left.Steps, left.Events = p.state.steps, p.state.events
	if req.Method != "" { // else it is the control plane's own
		if err := s.rememberEvent(p, req, edit, left); err != nil {
			return err
		}
	}
	if !p.changesState() {
		return nil
	}
	account := p.state.Account
	left.Steps = s.after(left.Steps)
	step, err := s.step(p, req)
	if err != nil {
		return err
	}
	p.note(s.keys.step(account, left.Steps), step)
	p.trim(s.keys.steps(account), left.Steps, stepsKept)
	return nil
}

func (s *Store) rememberEvent(p *plan, req RequestID, edit *Edit, left *guard) error {
	account := p.state.Account
	left.Events = s.after(left.Events)
	event := &adminv1.AuditEvent{
		Time: timestamppb.New(s.now()), Who: req.Who, Peer: req.Peer, Method: req.Method, Resource: req.Resource,
		RequestId: req.ID, Code: "OK", Changes: edit.Changes, MoreChanges: int32(edit.MoreChanges), Role: req.Role,
		Account: topology.AccountName(account),
	}
	if edit.Changes == nil {
		event.Changes, event.MoreChanges = p.touches()
	}
	if p.deleteAccount {
		event.Changes[0].Action = adminv1.ResourceChange_DELETED
	}
	fields := 0
	for _, change := range event.Changes {
		if fields += proto.Size(change); fields > maxFields {
			change.Fields = nil
		}
	}
	value, err := proto.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode the event of a write: %w", err)
	}
	p.note(s.keys.audit(account, left.Events), value)
	p.trim(s.keys.audits(account), left.Events, eventsKept)
	return nil
}

// size is about how long the transaction is that is being made.
func (p *plan) size() (n int) {
	const each = 24 // for lengths and kinds
	for _, op := range p.ops {
		n += len(op.KeyBytes()) + len(op.ValueBytes()) + each
	}
	for _, compare := range p.compares {
		n += len(compare.KeyBytes()) + each
	}
	return n
}

// note adds a put that does not count for the bounds of a step.
func (p *plan) note(key string, value []byte) {
	p.ops = append(p.ops, clientv3.OpPut(key, string(value)))
}

// trim removes what is beyond the newest of a folder.
func (p *plan) trim(folder string, n, keep int64) {
	if n%trimEvery == 0 {
		p.ops = append(p.ops,
			clientv3.OpDelete(numbered(folder, n-keep), clientv3.WithRange(clientv3.GetPrefixRangeEnd(folder))))
	}
}

// touched yields the resources that a plan changes, in the order of keys.
func (p *plan) touched() []*storev1.Step_Touched {
	var all []*storev1.Step_Touched
	resealed := make(map[topology.Key]bool, len(p.resealed))
	for _, key := range p.resealed {
		resealed[key] = true
	}
	for _, put := range p.puts {
		if resealed[put.key] {
			continue
		}
		_, before := p.state.record(put.key)
		all = append(all, &storev1.Step_Touched{Key: put.key.String(), Before: before, After: true})
	}
	for _, key := range p.deletes {
		all = append(all, &storev1.Step_Touched{Key: key.String(), Before: true})
	}
	slices.SortFunc(all,
		func(a, b *storev1.Step_Touched) int { return bytes.Compare([]byte(a.GetKey()), []byte(b.GetKey())) })
	return all
}

// maxTouches bounds the resources that an event names.
const maxTouches = 200

// touches are the changes of a plan without their fields.
func (p *plan) touches() (changes []*adminv1.ResourceChange, more int32) {
	changes = changesOf(p.touched())
	if n := len(changes); n > maxTouches {
		return changes[:maxTouches], int32(n - maxTouches)
	}
	return changes, 0
}

// changesOf describes what became of resources. An origin and its secrets are one, and a domain and
// its certificate.
func changesOf(touched []*storev1.Step_Touched) (changes []*adminv1.ResourceChange) {
	at := make(map[string]int) // in changes, by name
	for _, t := range touched {
		key, err := topology.ParseKey(t.GetKey())
		if err != nil {
			continue
		}
		part := true
		switch key.Kind {
		case topology.KindOriginSecrets:
			key = originOf(key)
		case topology.KindCertificates:
			key = domainOf(key)
		default:
			part = false
		}
		action := adminv1.ResourceChange_UPDATED
		switch {
		case part:
		case !t.GetBefore():
			action = adminv1.ResourceChange_CREATED
		case !t.GetAfter():
			action = adminv1.ResourceChange_DELETED
		}
		name := key.Name()
		switch i, listed := at[name]; {
		case name == "", listed && part:
		case listed: // by a part of it, whose key comes first
			changes[i].Action = action
		default:
			at[name] = len(changes)
			changes = append(changes, &adminv1.ResourceChange{Name: name, Action: action})
		}
	}
	return changes
}

// step is what is kept of a plan: also what it replaced, if its transaction has room for that.
func (s *Store) step(p *plan, req RequestID) ([]byte, error) {
	images := new(storev1.Images)
	step := &storev1.Step{Time: timestamppb.New(s.now()), Who: req.Who, Method: req.Method, RequestId: req.ID}
	for _, t := range p.touched() {
		key, err := topology.ParseKey(t.GetKey())
		if err != nil {
			return nil, err
		}
		if !isVersioned(key.Kind) {
			continue
		}
		step.Touched = append(step.Touched, t)
		if record, ok := p.state.record(key); ok {
			images.Images = append(images.Images, &storev1.Images_Image{Key: t.GetKey(), Value: record.Value})
		}
	}
	plain, err := proto.Marshal(images)
	if err != nil {
		return nil, fmt.Errorf("encode what a step replaces: %w", err)
	}
	e, err := encoder()
	if err != nil {
		return nil, fmt.Errorf("compress what a step replaces: %w", err)
	}
	room := maxRequest - p.size()
	if before := e.EncodeAll(plain, []byte{}); len(before) <= min(maxImages, room-proto.Size(step)) {
		step.Before = before
	}
	value, err := proto.Marshal(step)
	if err != nil {
		return nil, fmt.Errorf("encode a step: %w", err)
	}
	return value, nil
}

// images are the resources before a step.
func images(step *storev1.Step) (map[string][]byte, error) {
	d, err := decoder()
	if err != nil {
		return nil, fmt.Errorf("decompress a step: %w", err)
	}
	plain, err := d.DecodeAll(step.GetBefore(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: a step of the history: %w", ErrBroken, err)
	}
	found := new(storev1.Images)
	if err := proto.Unmarshal(plain, found); err != nil {
		return nil, fmt.Errorf("%w: a step of the history: %w", ErrBroken, err)
	}
	before := make(map[string][]byte, len(found.GetImages()))
	for _, image := range found.GetImages() {
		value := image.GetValue()
		if value == nil {
			value = []byte{}
		}
		before[image.GetKey()] = value
	}
	return before, nil
}

// numberedStep is a step as it was read.
type numberedStep struct {
	*storev1.Step
	n, revision int64
}

// readSteps reads steps of an account as of a revision, the newest first, from number below on; 0
// is the newest.
func (s *Store) readSteps(
	ctx context.Context, account string, below int64, limit int, revision int64,
) (steps []numberedStep, more bool, at int64, err error) {
	folder := s.keys.steps(account)
	resp, err := s.readNumbered(ctx, folder, below, limit, revision)
	if err != nil {
		return nil, false, 0, fmt.Errorf("read the history of account %q: %w", account, err)
	}
	for _, kv := range resp.Kvs {
		step := numberedStep{Step: new(storev1.Step), revision: kv.ModRevision}
		if step.n, err = numberOf(folder, kv.Key); err == nil {
			err = proto.Unmarshal(kv.Value, step.Step)
		}
		if err != nil {
			return nil, false, 0, fmt.Errorf("%w: %q: %w", ErrBroken, kv.Key, err)
		}
		steps = append(steps, step)
	}
	return steps, resp.More, resp.Header.Revision, nil
}

func (s *Store) readNumbered(
	ctx context.Context, folder string, below int64, limit int, revision int64,
) (*clientv3.GetResponse, error) {
	from := folder
	if below > 0 {
		from = numbered(folder, below-1)
	}
	return s.get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(folder)), clientv3.WithLimit(int64(limit)),
		clientv3.WithRev(revision))
}

// Steps reads steps that changed an account, the newest first: those with a lower number than
// below, or the newest if that is 0. It returns limit of them at most, and fewer where they are
// large. next is the number to go on below, 0 at the end.
func (s *Store) Steps(
	ctx context.Context, account string, below int64, limit int,
) (steps []*adminv1.Step, next, revision int64, err error) {
	next, err = inParts(below, limit, func(below int64, limit int) (*numberedPart, error) {
		read, more, at, err := s.readSteps(ctx, account, below, limit, 0)
		if err != nil {
			return nil, err
		}
		revision = cmp.Or(revision, at)
		part := &numberedPart{more: more}
		for _, step := range read {
			part.numbers = append(part.numbers, step.n)
			part.items = append(part.items, &adminv1.Step{
				Revision: step.revision, Time: step.GetTime(), Who: step.GetWho(), Method: step.GetMethod(),
				RequestId: step.GetRequestId(), Changes: changesOf(step.GetTouched()), Reversible: step.Before != nil,
			})
		}
		return part, nil
	}, func(step proto.Message) { steps = append(steps, step.(*adminv1.Step)) })
	return steps, next, revision, err
}

// Events reads events of an account, as Steps reads steps.
func (s *Store) Events(
	ctx context.Context, account string, below int64, limit int,
) (events []*adminv1.AuditEvent, next int64, err error) {
	folder := s.keys.audits(account)
	next, err = inParts(below, limit, func(below int64, limit int) (*numberedPart, error) {
		resp, err := s.readNumbered(ctx, folder, below, limit, 0)
		if err != nil {
			return nil, fmt.Errorf("read the audit of account %q: %w", account, err)
		}
		part := &numberedPart{more: resp.More}
		for _, kv := range resp.Kvs {
			event := new(adminv1.AuditEvent)
			n, err := numberOf(folder, kv.Key)
			if err == nil {
				err = proto.Unmarshal(kv.Value, event)
			}
			if err != nil {
				return nil, fmt.Errorf("%w: %q: %w", ErrBroken, kv.Key, err)
			}
			event.Revision = kv.ModRevision
			part.numbers, part.items = append(part.numbers, n), append(part.items, event)
		}
		return part, nil
	}, func(event proto.Message) { events = append(events, event.(*adminv1.AuditEvent)) })
	return events, next, err
}

// numberedPart is what one read returns of what is numbered, and whether there is more.
type numberedPart struct {
	numbers []int64
	items   []proto.Message
	more    bool
}

// maxPageBytes ends a page early. gRPC clients take messages of 4 MiB by default.
const maxPageBytes = 2 << 20

// inParts reads a page of what is numbered, a few at once: a single one may have hundreds of
// kilobytes. next is the number to go on below, 0 at the end.
func inParts(
	below int64, limit int, read func(below int64, limit int) (*numberedPart, error), take func(proto.Message),
) (next int64, err error) {
	for n, size := 0, 0; ; {
		part, err := read(below, min(limit-n, stepsAtOnce))
		if err != nil {
			return 0, err
		}
		for i, item := range part.items {
			take(item)
			n++
			below, size = part.numbers[i], size+proto.Size(item)
			if last := i+1 == len(part.items); (n == limit || size >= maxPageBytes) && (part.more || !last) {
				return below, nil
			}
		}
		if !part.more {
			return 0, nil
		}
	}
}

// HistoryError says that an account's history does not go back to a revision, or not yet on to it.
// It is an [ErrOutOfRange].
type HistoryError struct {
	// Revision is what was asked for. First and Last are the revisions that there are.
	Revision, First, Last int64
	// Why is why it goes no further back, for people.
	Why string
}

func (e *HistoryError) Error() string {
	if e.Revision > e.Last {
		return fmt.Sprintf("revision %d has not been reached: the current one is %d", e.Revision, e.Last)
	}
	return fmt.Sprintf("the history goes back to revision %d, not to %d: %s", e.First, e.Revision, e.Why)
}

// Is makes e an [ErrOutOfRange].
func (e *HistoryError) Is(target error) bool { return target == ErrOutOfRange }

// stepsAtOnce is how many steps, or events, one read has.
const stepsAtOnce = 50

// AsOf returns an account as it was at a revision, which etcd may have forgotten: its origins,
// their secrets, endpoints and domains. now is the account as it is, and what is returned goes with
// it. It returns a [HistoryError].
func (s *Store) AsOf(ctx context.Context, now *State, revision int64) (*State, error) {
	if revision > now.Revision {
		return nil, &HistoryError{Revision: revision, Last: now.Revision}
	}
	records := make(map[topology.Key]topology.Record)
	for _, kind := range append([]topology.Kind{topology.KindAccounts}, stateKinds[:]...) {
		for item := range now.Records.All(kind, "", "") {
			records[item.Key()] = item.Record()
		}
	}
	first := now.Changed
	refuse := func(why string) error {
		return &HistoryError{Revision: revision, First: first, Last: now.Revision, Why: why}
	}
	below, expected := int64(0), now.steps
	for {
		steps, more, _, err := s.readSteps(ctx, now.Account, below, stepsAtOnce, now.Revision)
		if err != nil {
			return nil, err
		}
		for _, step := range steps {
			switch {
			case step.revision <= revision:
				return now.with(records), nil
			case step.n != expected:
				return nil, refuse("a change was made where etcd had no space to keep the one before it")
			case step.Before == nil:
				first = step.revision
				return nil, refuse(fmt.Sprintf("what the step at %d replaced was too large to be kept", step.revision))
			}
			if err := undo(step.Step, records); err != nil {
				return nil, err
			}
			expected, below, first = step.n-1, step.n, step.revision-1
		}
		if more {
			continue
		}
		if revision < first {
			return nil,
				refuse(fmt.Sprintf("steps are kept for %d days, and of an account the last %d", int(keptFor.Hours()/24),
					stepsKept))
		}
		return now.with(records), nil
	}
}

func undo(step *storev1.Step, records map[topology.Key]topology.Record) error {
	before, err := images(step)
	if err != nil {
		return err
	}
	for _, t := range step.GetTouched() {
		key, err := topology.ParseKey(t.GetKey())
		if err != nil {
			return fmt.Errorf("%w: a step of the history: %w", ErrBroken, err)
		}
		if value, ok := before[t.GetKey()]; ok {
			records[key] = topology.Record{Key: key, Value: value}
		} else {
			delete(records, key)
		}
	}
	return nil
}

// with returns the state with other records.
func (s *State) with(records map[topology.Key]topology.Record) *State {
	w := index.NewWriter()
	for _, record := range records {
		w.Load(&plain{record})
	}
	all := w.Index()
	next := *s
	next.Records, next.whole = all.Account(s.Account), false
	return &next
}

const (
	// sweepAtOnce is how many accounts one look for what is too old takes, and sweepPause the time
	// between two passes.
	sweepAtOnce = 100
	sweepPause  = time.Hour
)

// sweepSteps returns the job that removes steps and events that are older than they are kept.
func (s *Store) sweepSteps() func(context.Context) error {
	folders := []string{s.keys.prefix + "history/", s.keys.prefix + "audit/"}
	from, which := folders[0], 0
	var dates passes
	var next, oldest time.Time
	return func(ctx context.Context) error {
		if s.now().Before(next) {
			return nil
		}
		if from == folders[0] { // a pass begins
			oldest = dates.begin(s.now()).Add(-keptFor)
		}
		for range sweepAtOnce {
			resp, err := s.get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(folders[which])),
				clientv3.WithLimit(1), clientv3.WithKeysOnly())
			if err != nil {
				return fmt.Errorf("read the history: %w", err)
			}
			if len(resp.Kvs) > 0 {
				folder := string(resp.Kvs[0].Key[:bytes.LastIndexByte(resp.Kvs[0].Key, '/')+1])
				if err := s.forgetOld(ctx, folder, oldest); err != nil {
					return fmt.Errorf("forget old history: %w", err)
				}
				from = clientv3.GetPrefixRangeEnd(folder)
				continue
			}
			which = (which + 1) % len(folders)
			if from = folders[which]; which == 0 {
				next = s.now().Add(sweepPause)
				return nil
			}
		}
		return nil
	}
}

// forgetOld removes the entries at the end of a folder that are older than the oldest that is kept.
// One that a clock has dated long ago takes none with it that are not.
func (s *Store) forgetOld(ctx context.Context, folder string, oldest time.Time) error {
	from, end := folder, clientv3.GetPrefixRangeEnd(folder)
	cut := "" // the first of those that are old up to here
	for {
		// A single one may have hundreds of kilobytes.
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(stepsAtOnce))
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			dated := new(storev1.Dated)
			err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(kv.Value, dated)
			switch {
			case err == nil && !dated.GetTime().AsTime().Before(oldest):
				cut = ""
			case cut == "":
				cut = string(kv.Key)
			}
		}
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	if cut == "" {
		return nil
	}
	_, err := s.do(ctx, []clientv3.Op{clientv3.OpDelete(cut, clientv3.WithRange(end))})
	return err
}
