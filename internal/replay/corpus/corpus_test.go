package corpus

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/replay"
)

// thin is a mix of every kind of fault and little noise.
func thin() Mix {
	m := DefaultMix()
	m.Xid45PerNodeDay, m.ChatterPerNodeDay, m.FaultsPerKind = 50, 20, 1
	return m
}

func fleet(t *testing.T, o Options) *Corpus {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// raw is a node's log as a file, and its labels.
func raw(t *testing.T, n *Node) ([]byte, []Label) {
	t.Helper()
	var b bytes.Buffer
	if err := WriteRaw(&b, n); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), n.Labels()
}

func TestASeedIsACorpus(t *testing.T) {
	sum := func(seed uint64) string {
		c := fleet(t, Options{Seed: seed, Nodes: 12, Days: 2, Mix: thin()})
		h := sha256.New()
		for i := range c.Nodes() {
			log, labels := raw(t, c.Node(i))
			h.Write(log)
			fmt.Fprint(h, labels)
		}
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	first := sum(1)
	if again := sum(1); first != again {
		t.Error("the same seed made two corpora")
	}
	if first == sum(2) {
		t.Error("two seeds made the same corpus")
	}
}

func TestANodeCanBeReadAgain(t *testing.T) {
	c := fleet(t, Options{Seed: 1, Nodes: 12, Days: 1, Mix: thin()})
	one, labels1 := raw(t, c.Node(3))
	two, labels2 := raw(t, c.Node(3))
	if !bytes.Equal(one, two) || len(labels1) == 0 || !cmp.Equal(labels1, labels2) {
		t.Errorf("%d bytes, then %d; %d labels, then %d", len(one), len(two), len(labels1), len(labels2))
	}
}

// TestEventsAreInOrder reads events as a machine gives them: times never go back, and numbers rise by one, or more where
// lines were overwritten, from each boot on.
func TestEventsAreInOrder(t *testing.T) {
	c := fleet(t, Options{Seed: 1, Nodes: 24, Days: 2})
	boots, lost := 0, 0
	for i := range c.Nodes() {
		n := c.Node(i)
		var last replay.Event
		seq := uint64(0)
		for {
			var e replay.Event
			if err := n.Next(&e); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if e.At.Before(last.At) {
				t.Fatalf("%s: %s after %s: %s", n.Name, e.At, last.At, e.Text)
			}
			last = e
			switch e.Kind {
			case replay.Boot:
				seq = 0
				boots++
			case replay.Line:
				if e.Seq <= seq {
					t.Fatalf("%s: number %d after %d", n.Name, e.Seq, seq)
				}
				lost += int(e.Seq - seq - 1)
				seq = e.Seq
			default:
			}
		}
		lost -= n.Counts().Lost
	}
	if boots <= c.Nodes() {
		t.Errorf("%d boots of %d nodes", boots, c.Nodes())
	}
	// What was overwritten last in a boot leaves no gap.
	if lost > 0 {
		t.Errorf("%d more numbers are missing than lines were overwritten", lost)
	}
}

func TestEveryKindIsThereAndLabelled(t *testing.T) {
	for _, size := range []Options{{Nodes: 24, Days: 1}, {Nodes: 12, Days: 3}} {
		size.Seed = 5
		c := fleet(t, size)
		seen := map[string]int{}
		devices := map[string]string{}
		for i := range c.Nodes() {
			_, labels := raw(t, c.Node(i))
			for _, l := range labels {
				seen[l.Kind]++
				if l.Node != nodeName(i) || l.From.Before(c.o.Start) || !l.From.Before(c.end()) || l.Until.Before(l.From) || l.Class == "" {
					t.Errorf("%+v", l)
				}
				if l.Fault && l.Visible && l.Code == "" || !l.Fault && l.Disruptive {
					t.Errorf("%+v", l)
				}
				if at := l.Node + " " + l.Device; l.Fault {
					if other := devices[at]; other != "" {
						t.Errorf("%s has %s and %s", at, other, l.Kind)
					}
					devices[at] = l.Kind
				}
			}
		}
		for _, k := range append(Kinds(), NoiseStorm, NoiseErrors, NoiseCrash, NoiseForged, NoiseInjected, NoiseOdd) {
			if seen[k] == 0 {
				t.Errorf("%d nodes over %d days have no %s", size.Nodes, size.Days, k)
			}
		}
	}
}

func TestACrashHits77NodesAtOnce(t *testing.T) {
	c := fleet(t, Options{Seed: 1, Nodes: 100, Days: 1, Mix: thin()})
	nodes := map[string]bool{}
	var first, last Label
	for i := range c.Nodes() {
		_, labels := raw(t, c.Node(i))
		for _, l := range labels {
			if l.Kind != NoiseCrash {
				continue
			}
			nodes[l.Node] = true
			if first.Node == "" || l.From.Before(first.From) {
				first = l
			}
			if l.From.After(last.From) {
				last = l
			}
		}
	}
	if len(nodes) != 77 || last.From.Sub(first.From).Seconds() > 2 {
		t.Errorf("%d nodes within %s", len(nodes), last.From.Sub(first.From))
	}
}

func TestALogIsMadeADayAtATime(t *testing.T) {
	c := fleet(t, Options{Seed: 1, Nodes: 6, Days: 40, Mix: thin()})
	n := c.Node(0)
	total, most := 0, 0
	for {
		var e replay.Event
		if err := n.Next(&e); err != nil {
			break
		}
		total++
		most = max(most, len(n.items)+len(n.ready))
	}
	if most > total/3 {
		t.Errorf("%d of %d events were held at once", most, total)
	}
}

func TestNewRefusesWhatCannotBe(t *testing.T) {
	for want, o := range map[string]Options{
		"0 nodes: want 1 to":                   {Nodes: 0, Days: 1},
		"0 days: want 1 to":                    {Nodes: 24, Days: 0},
		"want 100000 node-days at most":        {Nodes: 30000, Days: 366},
		"have no room for every kind":          {Nodes: 2, Days: 1},
		"9 GPUs and 4 switches a node: want 1": {Nodes: 24, Days: 1, Mix: Mix{GPUs: 9, Switches: 4}},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestWhatIsWrittenIsWhatIsPlayed plays each node from memory and from its file.
func TestWhatIsWrittenIsWhatIsPlayed(t *testing.T) {
	c := fleet(t, Options{Seed: 3, Nodes: 12, Days: 1, Mix: thin()})
	dir := t.TempDir()
	if err := c.Write(dir); err != nil {
		t.Fatal(err)
	}
	var labels []Label
	for i := range c.Nodes() {
		n := c.Node(i)
		want, err := replay.Run(t.Context(), n, replay.Options{})
		if err != nil {
			t.Fatal(err)
		}
		labels = append(labels, n.Labels()...)
		got := playFile(t, filepath.Join(dir, FileName(n.Name)))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-memory +file):\n%s", n.Name, diff)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, LabelsFile))
	if err != nil {
		t.Fatal(err)
	}
	var written []Label
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var l Label
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		written = append(written, l)
	}
	if diff := cmp.Diff(labels, written); diff != "" {
		t.Errorf("labels (-memory +file):\n%s", diff)
	}
}

func playFile(t *testing.T, path string) replay.Result {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r, err := replay.NewReader(path, f, replay.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := replay.Run(t.Context(), r, replay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if notes := r.Notes(); notes.FacilityAssumed || notes.Malformed > 0 || notes.SinceBoot {
		t.Errorf("%s: %+v", path, notes)
	}
	return got
}

func TestWriteReportsADirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := fleet(t, Options{Seed: 3, Nodes: 12, Days: 1, Mix: thin()})
	if err := c.Write(file); err == nil || !strings.HasPrefix(err.Error(), "writing the corpus: ") {
		t.Error(err)
	}
}
