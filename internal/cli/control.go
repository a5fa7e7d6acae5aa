package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/archiver/archive"
	"weir/archiver/read"
	"weir/control"
	"weir/control/executor"
	"weir/ingest"
	"weir/internal/config"
	"weir/internal/telemetry"
	"weir/schema"
)

type controlCmds struct {
	Run      controlCmd      `cmd:"" default:"withargs" help:"Decide on signals and events by the policies; stand by while another process does."`
	Check    controlCheckCmd `cmd:"" help:"Read a policy file and say what is wrong with it, or what it would act on."`
	History  historyCmd      `cmd:"" help:"Show what was decided, why, and what became of it."`
	Freeze   freezeCmd       `cmd:"" help:"Let nothing be done until it is unfrozen."`
	Unfreeze unfreezeCmd     `cmd:"" help:"Let things be done again."`
	Close    closeCmd        `cmd:"" name:"close-breaker" help:"Close a breaker, after a person has looked."`
	Simulate simulateCmd     `cmd:"" help:"Take recorded events and signals through a policy file, and print what would have been decided."`
	Keygen   keygenCmd       `cmd:"" help:"Make an Ed25519 key: FILE for its owner alone, and beside it FILE's public half as .pub."`
}

type (
	controlCmd  struct{}
	executorCmd struct{}

	executorCmds struct {
		Run     executorCmd        `cmd:"" default:"withargs" help:"Carry out signed orders on this node."`
		Prepare executorPrepareCmd `cmd:"" help:"Make executor.state_dir and give it to the user that the executor runs as."`
	}
	executorPrepareCmd struct {
		Owner string `required:"" placeholder:"UID:GID" help:"As numbers."`
	}
)

func (p executorPrepareCmd) Run(g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	user, group, _ := strings.Cut(p.Owner, ":")
	uid, err := strconv.ParseUint(user, 10, 31)
	if err != nil {
		return fmt.Errorf("--owner: %q is not UID:GID, two numbers", p.Owner)
	}
	gid, err := strconv.ParseUint(group, 10, 31)
	if err != nil {
		return fmt.Errorf("--owner: %q is not UID:GID, two numbers", p.Owner)
	}
	return executor.Prepare(cfg.Executor.StateDir, int(uid), int(gid))
}

func (controlCmd) Run(ctx context.Context, g *globals) error  { return g.component(ctx, "control") }
func (executorCmd) Run(ctx context.Context, g *globals) error { return g.component(ctx, "executor") }

type controlCheckCmd struct {
	File string `arg:"" help:"The policy file."`
}

func (c controlCheckCmd) Run(g *globals) error {
	p, err := config.LoadPolicies(c.File)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	for i := range p.Policies {
		one := &p.Policies[i]
		var on, steps []string
		for _, o := range one.On {
			what := cmp.Or(o.Signal, strings.TrimSpace(o.Event+" "+o.Detail))
			if o.Count > 1 {
				what += fmt.Sprintf(" ×%d in %v", o.Count, o.Within)
			}
			on = append(on, what)
		}
		for _, s := range one.Steps {
			if s.Times > 1 {
				s.Action += fmt.Sprintf(" ×%d", s.Times)
			}
			steps = append(steps, s.Action)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", one.Name, one.Mode, strings.Join(on, ", "), strings.Join(steps, ", then "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(g.out, "the policies are good: %d, acting: %t\n", len(p.Policies), p.Acting())
	return err
}

type keygenCmd struct {
	File string `arg:"" help:"Where the private key goes, such as decider.pem."`
}

func (c keygenCmd) Run(g *globals) error {
	key, err := control.NewKey()
	if err != nil {
		return err
	}
	if err := key.Write(c.File); err != nil {
		return err
	}
	_, err = fmt.Fprintf(g.out, "private key: %s\npublic key: %s\n", c.File, control.PublicPath(c.File))
	return err
}

// commandFlags is what the commands to the decider share.
type commandFlags struct {
	Key    string `help:"Your private key; control.command_keys must name its public half." required:""`
	Reason string `help:"Why; it is in the history." required:""`
	// The answer comes over the same topic as everything else, so whoever may write there could answer too.
	Trusted []string `help:"Files with the public keys of deciders; executor.trusted_keys where none is given." placeholder:"FILE"`
}

type (
	freezeCmd   struct{ commandFlags }
	unfreezeCmd struct{ commandFlags }
	closeCmd    struct {
		commandFlags
		Name string `arg:"" help:"total, or the name of a policy."`
	}
)

func (c freezeCmd) Run(ctx context.Context, g *globals) error {
	return c.send(ctx, g, control.Freeze, "")
}

func (c unfreezeCmd) Run(ctx context.Context, g *globals) error {
	return c.send(ctx, g, control.Unfreeze, "")
}

func (c closeCmd) Run(ctx context.Context, g *globals) error {
	return c.send(ctx, g, control.CloseBreaker, c.Name)
}

// answerTimeout is how long a command waits for the decider.
const answerTimeout = 20 * time.Second

func (c commandFlags) send(ctx context.Context, g *globals, what, name string) error {
	key, err := control.ReadKey(c.Key)
	if err != nil {
		return err
	}
	cfg, err := g.load()
	if err != nil {
		return err
	}
	r, err := newRuntime(cfg, telemetry.Logger(g.err, cfg.Log.Format, cfg.Log.Level))
	if err != nil {
		return err
	}
	defer r.kafka.Close()
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var producer errgroup.Group
	producer.Go(func() error { return r.producer.Run(running) })
	defer func() { stop(); _ = producer.Wait() }()
	if len(c.Trusted) == 0 {
		c.Trusted = cfg.Executor.TrustedKeys
	}
	deciders, err := control.ReadKeys(c.Trusted)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()

	ends, err := r.kafka.Ends(ctx, schema.TopicActions)
	if err != nil {
		return err
	}
	command := newCommand(what, name, c.Reason)
	sealed := key.Seal(command)
	rec := control.CommandRecord(&sealed, command)
	source := "weir/command/" + command.ID // a stream of its own: nothing comes before or after
	var e schema.Encoder
	e.Reset(source, schema.Incarnation{}, nil)
	e.Append(&rec)
	if err := r.producer.Send(ctx, ingest.Message{Topic: schema.TopicActions, Source: source, End: schema.Position{Offset: 1}, Count: 1, Value: e.Bytes()}); err != nil {
		return err
	}
	if err := r.producer.Flush(ctx); err != nil {
		return err
	}
	answered := errors.New("answered")
	var answer *control.Decision
	err = r.kafka.Follow(ctx, ends, func(b *schema.Batch) error {
		for i := range b.Records {
			d := new(control.Decision)
			if b.Records[i].EventName != schema.EventDecision {
				continue
			}
			if s, err := control.Unseal(&b.Records[i], d); err == nil && slices.Contains(d.Signals, command.ID) && (len(deciders) == 0 || deciders.Signed(s)) {
				answer = d
				return answered
			}
		}
		return nil
	}, func(ingest.TopicPartition, int64, error) {})
	switch {
	case answer == nil:
		return fmt.Errorf("no decider answered within %v (%w); the command is good for 5 minutes, so one that starts until then obeys", answerTimeout, err)
	case answer.Verdict == control.VerdictCommandFailed:
		return fmt.Errorf("the decider refuses: %s", answer.Reason)
	}
	if len(deciders) == 0 {
		fmt.Fprintln(g.err, "weir: who answers was not checked; name the decider's public key with --trusted")
	}
	_, err = fmt.Fprintln(g.out, cell(answer.Sentence()))
	return err
}

func newCommand(what, name, reason string) *control.Command {
	by := "unknown"
	if u, err := user.Current(); err == nil {
		by = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		by += "@" + host
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // it never fails
	return &control.Command{ID: hex.EncodeToString(id), What: what, Name: name, By: by, Reason: reason, At: time.Now().UnixNano()}
}

type historyCmd struct {
	Since     time.Duration `help:"Only of the last time, such as 24h."`
	Container string        `help:"Only of containers whose name or id begins so."`
	Verdict   []string      `help:"Only these verdicts: act, would_act, notify, refused, breaker_opened …"`
	Verify    bool          `help:"Check the chain of all decisions that Kafka has: nothing missing, nothing changed, and, with --trusted, everything signed."`
	Trusted   []string      `help:"Files with the public keys of deciders, for --verify." placeholder:"FILE"`
	JSON      bool          `help:"One JSON object a line."`
}

// history is what weir.actions holds.
type history struct {
	chain    []control.Sealed
	outcomes map[string][]control.Outcome // by order
	strange  []string                     // records that are not what they should be
}

func (c historyCmd) Run(ctx context.Context, g *globals) error {
	keys, err := control.ReadKeys(c.Trusted)
	if err != nil {
		return err
	}
	_, k, err := g.kafka()
	if err != nil {
		return err
	}
	defer k.Close()
	h, err := readHistory(ctx, k)
	if err != nil {
		return err
	}
	// Anybody who may write to the topic can put something there; it is told, and is no part of the chain.
	if len(keys) > 0 {
		h.chain = slices.DeleteFunc(h.chain, func(s control.Sealed) bool {
			if keys.Signed(s) {
				return false
			}
			h.strange = append(h.strange, "signed by no trusted key: "+s.Payload[:min(200, len(s.Payload))])
			return true
		})
	}
	links, problems := control.Verify(h.chain)
	if err := c.show(g, h, links); err != nil || !c.Verify {
		return err
	}
	if last, err := control.LastWritten(ctx, k.Journal(schema.TopicControl)); err != nil {
		problems = append(problems, err.Error())
	} else if n := len(links); n == 0 && last.Seq > 0 || n > 0 && (links[n-1].Chain != last.Chain || links[n-1].Seq != last.Seq-1 || h.chain[len(h.chain)-1].Hash != last.Head) {
		problems = append(problems, fmt.Sprintf("the decider has written decisions up to %d, and the last ones are not there", last.Seq-1))
	}
	for _, s := range h.strange {
		fmt.Fprintln(g.err, "weir: not a decision:", cell(s))
	}
	for _, p := range problems {
		fmt.Fprintln(g.err, "weir:", cell(p))
	}
	if len(problems) > 0 {
		return fmt.Errorf("the history is not whole: %d problems", len(problems))
	}
	if len(links) == 0 {
		_, err = fmt.Fprintln(g.out, "nothing was decided yet")
		return err
	}
	_, err = fmt.Fprintf(g.out, "the chain is whole: decisions %d to %d, signatures %s\n", links[0].Seq, links[len(links)-1].Seq, map[bool]string{true: "checked", false: "not checked"}[len(keys) > 0])
	return err
}

func readHistory(ctx context.Context, k *ingest.Kafka) (*history, error) {
	h := &history{outcomes: map[string][]control.Outcome{}}
	seen := map[string]bool{}
	byPlace := map[string]*control.Decision{}
	err := k.Scan(ctx, schema.TopicActions, time.Time{}, func(b *schema.Batch) error {
		for i := range b.Records {
			r := &b.Records[i]
			switch r.EventName {
			case schema.EventDecision:
				d := new(control.Decision)
				s, err := control.Unseal(r, d)
				if err != nil {
					h.strange = append(h.strange, err.Error())
					continue
				}
				if hash, _ := r.Attr(schema.AttrActionHash); hash.Str != s.Hash {
					h.strange = append(h.strange, fmt.Sprintf("decision %d is not what its hash says", d.Seq))
				}
				if !seen[s.Hash] {
					seen[s.Hash] = true
					byPlace[s.Hash] = d
					h.chain = append(h.chain, s)
				}
			case schema.EventOutcome:
				var o control.Outcome
				if s, err := control.Unseal(r, &o); err != nil {
					h.strange = append(h.strange, err.Error())
				} else if !seen[s.Hash] {
					seen[s.Hash] = true
					h.outcomes[o.ID] = append(h.outcomes[o.ID], o)
				}
			}
		}
		return nil
	}, func(err error) { h.strange = append(h.strange, err.Error()) })
	slices.SortStableFunc(h.chain, func(a, b control.Sealed) int {
		x, y := byPlace[a.Hash], byPlace[b.Hash]
		return cmp.Or(cmp.Compare(x.Chain, y.Chain), cmp.Compare(x.Seq, y.Seq))
	})
	return h, err
}

func (c historyCmd) takes(d *control.Decision) bool {
	if c.Since > 0 && time.Since(time.Unix(0, d.At)) > c.Since || len(c.Verdict) > 0 && !slices.Contains(c.Verdict, d.Verdict) {
		return false
	}
	return c.Container == "" || d.Subject != nil && (strings.HasPrefix(d.Subject.Name, c.Container) || strings.HasPrefix(d.Subject.Container, c.Container))
}

func (c historyCmd) show(g *globals, h *history, links []*control.Decision) error {
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	if !c.JSON {
		fmt.Fprintln(w, "TIME\tNO\tVERDICT\tWHAT\tOUTCOME")
	}
	for _, d := range links {
		if !c.takes(d) {
			continue
		}
		var outcomes []control.Outcome
		if d.Order != nil {
			outcomes = h.outcomes[d.Order.ID]
		}
		if c.JSON {
			if err := json.NewEncoder(g.out).Encode(struct {
				*control.Decision
				Outcomes []control.Outcome `json:"outcomes,omitempty"`
			}{d, outcomes}); err != nil {
				return err
			}
			continue
		}
		var said []string
		for _, o := range outcomes {
			said = append(said, strings.TrimSuffix(o.Verdict+": "+o.Reason, ": "))
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", time.Unix(0, d.At).Format(time.DateTime), d.Seq, cell(d.Verdict), cell(d.Sentence()), cmp.Or(cell(strings.Join(said, "; ")), "-"))
	}
	return w.Flush()
}

type simulateCmd struct {
	File string `arg:"" help:"The policy file."`
	From string `help:"From when: how long ago (90m, 2d), or a time." default:"1d"`
	To   string `help:"Until when, as --from." placeholder:"TIME"`
	// An archive has days that Kafka has deleted.
	Archive string `help:"Read this archive instead of Kafka: file:///… or hdfs://…" placeholder:"ROOT"`
	JSON    bool   `help:"One JSON object a line."`
}

// maxInputs bounds the memory of a simulation: about a gigabyte.
const maxInputs = 2_000_000

func (c simulateCmd) Run(ctx context.Context, g *globals) error {
	policies, err := config.LoadPolicies(c.File)
	if err != nil {
		return err
	}
	from, to, err := fromTo(c.From, c.To, time.Now())
	if err != nil {
		return err
	}
	var all []control.Input
	if err := c.read(ctx, g, from, to, func(b *schema.Batch) error {
		if all = append(all, control.Inputs(b, from, to)...); len(all) > maxInputs {
			return fmt.Errorf("there are more than %d events and signals; choose a shorter time", maxInputs)
		}
		return nil
	}); err != nil {
		return err
	}
	control.SortInputs(all)
	counts, failed := map[string]int{}, error(nil)
	s := control.Simulate(&policies, func(d *control.Decision) {
		counts[d.Verdict]++
		if c.JSON {
			failed = errors.Join(failed, json.NewEncoder(g.out).Encode(d))
		} else {
			_, err := fmt.Fprintf(g.out, "%s  %-14s  %s\n", time.Unix(0, d.At).Format(time.DateTime), d.Verdict, cell(d.Sentence()))
			failed = errors.Join(failed, err)
		}
	})
	for i := range all {
		if err := errors.Join(s.Take(&all[i]), failed); err != nil {
			return err
		}
	}
	if err := errors.Join(s.Until(to), failed); err != nil {
		return err
	}
	fmt.Fprintf(g.err, "%d events and signals:", len(all))
	for _, v := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(g.err, " %d %s", counts[v], v)
	}
	fmt.Fprintln(g.err)
	return nil
}

// read gives what Kafka has, or the archive.
func (c simulateCmd) read(ctx context.Context, g *globals, from, to time.Time, fn func(*schema.Batch) error) error {
	topics := []string{schema.TopicEvents, schema.TopicSignals}
	if c.Archive != "" {
		cfg, err := g.load()
		if err != nil {
			return err
		}
		st, err := openArchive(cfg.Archiver.Config, c.Archive)
		if err != nil {
			return err
		}
		defer st.Close()
		for b, err := range read.New(st).Batches(ctx, read.Query{Scope: archive.Scope{Topics: topics, Since: from, Until: to}}, nil) {
			if err == nil {
				err = fn(b)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	_, k, err := g.kafka()
	if err != nil {
		return err
	}
	defer k.Close()
	for _, topic := range topics {
		if err := k.Scan(ctx, topic, from, fn, func(err error) { fmt.Fprintln(g.err, "weir:", err) }); err != nil {
			return err
		}
	}
	return nil
}
