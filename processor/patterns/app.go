package patterns

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"weir/schema"
)

// history is how many closed windows of a template are kept, pending how many may be open at once: lines of several containers do
// not come in the order of their times. Lines older than all open windows count in the oldest, the first of a still later one closes it.
const (
	history = 30
	pending = 4
)

// Children of the tree's nodes, by level. Where there are that many, what is not among them goes to one child of its own.
const (
	maxLoggers = 200
	maxFirsts  = 24
)

// maxLeaf bounds the templates of a leaf, each of which a line is compared with; beyond it the one seen longest ago is forgotten.
const maxLeaf = 64

// crowded is how many templates of a leaf make it likely that a word in them varies; then less has to be equal.
const (
	crowded           = 16
	crowdedSimilarity = 0.4
)

// maxRemoved bounds the ids that a delta of the state names; beyond it the whole state is as short.
const maxRemoved = 4096

// maxImages is how many images of an app are remembered.
const maxImages = 8

// template is a pattern of lines.
type template struct {
	id       uint64
	path     [3]uint64 // of its leaf
	text     []byte    // masked
	words    []uint64  // hashes; 0 is masked
	content  int       // the first word that is not header
	severity int32     // the highest of its lines

	lines   uint64
	used    uint64 // the app's number of lines when it had its last
	open    [pending]uint32
	history [history]uint32 // closed windows, the last first
	windows uint8           // how many of them were since its birth
	example []byte          // id of the first line of the newest open window

	firing   bool
	fired    int64 // when it did last
	baseline uint32

	changed bool // since it was saved
}

// app is what is known of an app.
type app struct {
	name      string
	first     int64 // time of its first line
	last      int64 // highest time of its lines
	lines     uint64
	used      uint64 // the miner's number of batches when it had its last
	window    int64  // number of the oldest open window
	told      int    // new patterns in the oldest open window
	untold    int
	images    []image
	forgotten []uint64    // ids of templates that were dropped, so that they are not told as new again
	templates []*template // in the order of their birth

	tree    map[uint64]*node
	bytes   int
	changed bool
	idle    bool // what isIdle says

	// Since the state was saved; the whole of it has to be where it never was.
	saved   bool
	removed []uint64 // ids of templates
	fresh   int      // ids at the end of forgotten
}

// isIdle reports whether closing a window would change nothing: then it is left open, and the state needs not be saved for it.
func (a *app) isIdle() bool {
	if a.told+a.untold > 0 {
		return false
	}
	for _, t := range a.templates {
		if t.firing || t.windows < history || t.open != [pending]uint32{} || t.history != [history]uint32{} {
			return false
		}
	}
	return true
}

// image is one that an app ran, and when its first line was.
type image struct {
	name string
	at   int64
}

type node struct {
	children  map[uint64]*node
	templates []*template
}

// leaf finds the leaf of a line, and gives the path with its overflows. Without create it gives nil where there is none.
func (a *app) leaf(path *[3]uint64, create bool) *node {
	n := a.tree[path[0]]
	if n == nil {
		if !create {
			return nil
		}
		n = &node{}
		a.tree[path[0]] = n
	}
	for level, limit := range [2]int{maxLoggers, maxFirsts} {
		next := n.children[path[level+1]]
		if next == nil && len(n.children) >= limit {
			path[level+1] = 0
			next = n.children[0]
		}
		if next == nil {
			if !create {
				return nil
			}
			if next = (&node{}); n.children == nil {
				n.children = map[uint64]*node{}
			}
			n.children[path[level+1]] = next
		}
		n = next
	}
	return n
}

// find gives the template of a line that is most similar, and whether it is equal.
func (n *node) find(l *line, similarity float64) (best *template, equal bool) {
	if len(n.templates) >= crowded {
		similarity = min(similarity, crowdedSimilarity)
	}
	least := 0.0
	misses := int((1-similarity)*float64(max(len(l.words)-l.content, 0)) + 1e-9) // more than that cannot be similar
compare:
	for _, t := range n.templates {
		if len(t.words) != len(l.words) || t.content != l.content { // of equal paths, if hashes were
			continue
		}
		same, total := 0, 0
		exact := true
		for i := t.content; i < len(t.words); i++ {
			have, got := t.words[i], l.words[i].hash
			if have|got == 0 {
				continue
			}
			total++
			if have == got {
				same++
				continue
			}
			if have != 0 {
				exact = false
			}
			if total-same > misses {
				continue compare
			}
		}
		share := 1.0
		if total > 0 {
			share = float64(same) / float64(total)
		}
		if share < similarity || best != nil && share <= least {
			continue
		}
		if best, least, equal = t, share, exact; share == 1 {
			break
		}
	}
	if equal {
		for i := range best.content {
			if h := best.words[i]; h != 0 && h != l.words[i].hash {
				return best, false
			}
		}
	}
	return best, equal
}

// generalise masks the words of a template that differ from a line's. Its id stays. Templates of the leaf that it now covers are merged into it.
func (a *app) generalise(n *node, t *template, l *line) {
	var scratch line
	scratch.text = t.text
	scratch.split(len(t.words))
	text := make([]byte, 0, len(t.text))
	at := 0
	for i, w := range scratch.words {
		text = append(text, t.text[at:w.lo]...)
		if at = w.hi; t.words[i] == l.words[i].hash {
			text = append(text, t.text[w.lo:w.hi]...)
			continue
		}
		text = append(text, mask)
		t.words[i] = 0
	}
	a.bytes -= t.size()
	t.text = append(text, t.text[at:]...)
	a.bytes += t.size()
	for _, o := range slices.Clone(n.templates) {
		if o != t && !o.firing && t.covers(o) { // the end of what fires is told under its own id
			t.merge(o)
			a.remove(n, o)
		}
	}
}

func (t *template) covers(o *template) bool {
	if len(t.words) != len(o.words) || t.content != o.content {
		return false
	}
	for i, h := range t.words {
		if h != 0 && h != o.words[i] {
			return false
		}
	}
	return true
}

func (t *template) merge(o *template) {
	t.severity = max(t.severity, o.severity)
	t.lines += o.lines
	t.used = max(t.used, o.used)
	t.windows = max(t.windows, o.windows)
	for i := range t.open {
		t.open[i] += o.open[i]
	}
	for i := range t.history {
		t.history[i] += o.history[i]
	}
}

// size is about the memory that a template takes.
func (t *template) size() int { return 512 + len(t.text) + 8*len(t.words) }

// remove takes a template out of the app and its leaf, and empty nodes out of the tree.
func (a *app) remove(n *node, t *template) {
	is := func(o *template) bool { return o == t }
	n.templates = slices.DeleteFunc(n.templates, is)
	a.templates = slices.DeleteFunc(a.templates, is)
	a.bytes -= t.size()
	if a.saved {
		a.removed = append(a.removed, t.id)
		a.saved = len(a.removed) <= maxRemoved
	}
	if len(n.templates) > 0 {
		return
	}
	root := a.tree[t.path[0]]
	middle := root.children[t.path[1]]
	if delete(middle.children, t.path[2]); len(middle.children) > 0 {
		return
	}
	if delete(root.children, t.path[1]); len(root.children) == 0 {
		delete(a.tree, t.path[0])
	}
}

// born makes a template of a line.
func (a *app) born(n *node, l *line, path [3]uint64) *template {
	t := &template{path: path, text: bytes.Clone(l.text), words: make([]uint64, len(l.words)), content: l.content}
	for i := range l.words {
		t.words[i] = l.words[i].hash
	}
	sum := sha256.Sum256(t.text)
	t.id = binary.BigEndian.Uint64(sum[:])
	for slices.ContainsFunc(a.templates, func(o *template) bool { return o.id == t.id }) { // of one that became more general since
		t.id++
	}
	n.templates = append(n.templates, t)
	a.templates = append(a.templates, t)
	a.bytes += t.size()
	return t
}

// oldest is the template that was seen longest ago.
func oldest(all []*template, except *template) (old *template) {
	for _, t := range all {
		if t != except && (old == nil || t.used < old.used) {
			old = t
		}
	}
	return old
}

// Text is a template as people read it.
func (t *template) Text() string {
	return string(bytes.ReplaceAll(t.text, []byte{mask}, []byte("<*>")))
}

func idText(id uint64) string { return fmt.Sprintf("%016x", id) }

// secondBusiest is the count that only one of the closed windows exceeds, so that one outlier is no measure.
func (t *template) secondBusiest() uint32 {
	var first, second uint32
	for _, c := range t.history {
		switch {
		case c > first:
			first, second = c, first
		case c > second:
			second = c
		}
	}
	return second
}

// count adds a line to its window.
func (t *template) count(slot int64, b *schema.Batch, r *schema.Record) {
	newest := true
	for _, c := range t.open[slot:] {
		newest = newest && c == 0
	}
	if newest {
		t.example = b.AppendID(t.example[:0], r)
	}
	if t.open[slot]++; t.open[slot] == 0 {
		t.open[slot]--
	}
	t.lines++
	t.changed = true
}
