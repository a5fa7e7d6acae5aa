package read

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// text looks for words, whatever their case. A word is a run of letters, digits and underscores; a phrase is words with anything
// else between them. In a field of type text Elasticsearch looks for words too; it keeps words together that only a dot joins.
type text struct {
	all     bool // everything but an empty text
	phrases []*phrase
}

// phrase is found by its longest literal, and then looked at from there.
type phrase struct {
	words []pattern // in lower case; none: literal is looked for as it is
	word  int       // the one that has the literal
	find  finder
}

// newText takes a quoted value as one phrase, and else any of its words.
func newText(v value) *text {
	t := &text{all: v.any()}
	if t.all {
		return t
	}
	if v.quoted {
		t.phrases = append(t.phrases, newPhrase(v.pattern))
		return t
	}
	for _, w := range strings.Fields(strings.Join(v.pattern, "\x00")) {
		p := pattern(strings.Split(w, "\x00"))
		if p.any() {
			return &text{all: true}
		}
		t.phrases = append(t.phrases, newPhrase(p))
	}
	if len(t.phrases) == 0 { // a value of spaces alone
		t.phrases = append(t.phrases, newPhrase(v.pattern))
	}
	return t
}

// newPhrase cuts a pattern into words, each with its part of the wildcards.
func newPhrase(p pattern) *phrase {
	f := &phrase{}
	var word pattern
	closeWord := func() {
		if len(word) > 0 && !word.any() && (len(word) > 1 || word[0] != "") {
			f.words = append(f.words, word)
		}
		word = nil
	}
	for i, piece := range p {
		if i > 0 {
			if word == nil {
				word = pattern{""}
			}
			word = append(word, "")
		}
		for _, r := range strings.ToLower(piece) {
			if !isWord(r) {
				closeWord()
				continue
			}
			if word == nil {
				word = pattern{""}
			}
			word[len(word)-1] += string(r)
		}
	}
	closeWord()
	literal := ""
	for i, w := range f.words {
		for _, piece := range w {
			if len(piece) > len(literal) {
				literal, f.word = piece, i
			}
		}
	}
	if literal == "" { // no word at all: the signs themselves
		f.words = nil
		for _, piece := range p {
			if len(piece) > len(literal) {
				literal = strings.ToLower(piece)
			}
		}
	}
	f.find = newFinder(literal)
	return f
}

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// match tells whether one value has any of the phrases.
func (t *text) match(b []byte) bool {
	if t.all {
		return len(b) > 0
	}
	for _, p := range t.phrases {
		if p.match(b) {
			return true
		}
	}
	return false
}

func (p *phrase) match(b []byte) bool {
	if p.find.wide {
		b = bytes.ToLower(b)
	}
	found := false
	p.find.each(b, func(at int) (next int) {
		if p.holds(b, at) {
			found = true
			return len(b)
		}
		return at + 1
	})
	return found
}

// each calls hit with the numbers of values that match, ascending and perhaps repeated. The i-th value is data[offsets[i]:offsets[i+1]].
func (t *text) each(data []byte, offsets []uint32, hit func(i int)) {
	n := len(offsets) - 1
	if n < 1 {
		return
	}
	if t.all {
		for i := range n {
			if offsets[i] < offsets[i+1] {
				hit(i)
			}
		}
		return
	}
	for _, p := range t.phrases {
		if p.find.wide || p.find.literal == "" {
			for i := range n {
				if p.match(data[offsets[i]:offsets[i+1]]) {
					hit(i)
				}
			}
			continue
		}
		row, base := 0, int(offsets[0])
		all := data[base:offsets[n]]
		p.find.each(all, func(at int) (next int) {
			for int(offsets[row+1])-base <= at {
				row++
			}
			from, to := int(offsets[row])-base, int(offsets[row+1])-base
			if at+len(p.find.literal) > to || !p.holds(all[from:to], at-from) {
				return at + 1
			}
			hit(row)
			return to
		})
	}
}

// holds tells whether the phrase stands where its literal was found.
func (p *phrase) holds(b []byte, at int) bool {
	if len(p.words) == 0 {
		return true
	}
	from, to := wordStart(b, at), wordEnd(b, at+len(p.find.literal))
	if !fits(p.words[p.word], b[from:to]) {
		return false
	}
	left := from
	for i := p.word - 1; i >= 0; i-- {
		end := left
		for end > 0 {
			r, n := utf8.DecodeLastRune(b[:end])
			if isWord(r) {
				break
			}
			end -= n
		}
		if end == 0 || end == left {
			return false
		}
		left = wordStart(b, end)
		if !fits(p.words[i], b[left:end]) {
			return false
		}
	}
	right := to
	for _, w := range p.words[p.word+1:] {
		start := right
		for start < len(b) {
			r, n := utf8.DecodeRune(b[start:])
			if isWord(r) {
				break
			}
			start += n
		}
		if start == len(b) || start == right {
			return false
		}
		right = wordEnd(b, start)
		if !fits(w, b[start:right]) {
			return false
		}
	}
	return true
}

func wordStart(b []byte, at int) int {
	for at > 0 {
		if c := b[at-1]; c < utf8.RuneSelf {
			if !asciiWord[c] {
				break
			}
			at--
			continue
		}
		r, n := utf8.DecodeLastRune(b[:at])
		if !isWord(r) {
			break
		}
		at -= n
	}
	return at
}

func wordEnd(b []byte, at int) int {
	for at < len(b) {
		if c := b[at]; c < utf8.RuneSelf {
			if !asciiWord[c] {
				break
			}
			at++
			continue
		}
		r, n := utf8.DecodeRune(b[at:])
		if !isWord(r) {
			break
		}
		at += n
	}
	return at
}

// fits compares a word with a pattern, which is in lower case.
func fits(p pattern, word []byte) bool {
	if len(p) > 1 {
		return p.match(string(bytes.ToLower(word)))
	}
	if len(word) != len(p[0]) {
		return false
	}
	for i, c := range word {
		if lower[c] != p[0][i] {
			return false
		}
	}
	return true
}

var (
	asciiWord [utf8.RuneSelf]bool
	lower     [256]byte // of ASCII letters; any other byte is itself
	common    [256]int  // how common a byte is in log lines, roughly
)

func init() {
	for c := range lower {
		lower[c] = byte(c)
		if c >= 'A' && c <= 'Z' {
			lower[c] = byte(c) + 'a' - 'A'
		}
	}
	for c := range asciiWord {
		asciiWord[c] = isWord(rune(c))
	}
	for i, c := range []byte("zqjxkv_wyfbgpmuhcdlsrnio9876543tae210 ") {
		common[c] = i + 1
	}
}

// finder finds a literal in ASCII whatever its case. It looks for the literal's rarest byte, which the processor does many bytes at once.
type finder struct {
	literal  string
	rare     int // index of the rarest byte
	low, upp byte
	wide     bool // not ASCII: what is looked at must be made lower case before
}

func newFinder(literal string) finder {
	f := finder{literal: literal}
	for i := range len(literal) {
		f.wide = f.wide || literal[i] >= utf8.RuneSelf
		if common[literal[i]] < common[literal[f.rare]] {
			f.rare = i
		}
	}
	if literal != "" {
		f.low = literal[f.rare]
		f.upp = f.low
		if f.low >= 'a' && f.low <= 'z' {
			f.upp -= 'a' - 'A'
		}
	}
	return f
}

// each calls found with where the literal is; found says where to go on.
func (f *finder) each(b []byte, found func(at int) (next int)) {
	n := len(f.literal)
	if n == 0 {
		return
	}
	ahead := func(c byte, from int) int {
		if from < len(b) {
			if i := bytes.IndexByte(b[from:], c); i >= 0 {
				return from + i
			}
		}
		return len(b)
	}
	from := f.rare // of the rare byte
	low, upp := ahead(f.low, from), len(b)
	if f.upp != f.low {
		upp = ahead(f.upp, from)
	}
	for {
		if low < from {
			low = ahead(f.low, from)
		}
		if upp < from {
			upp = ahead(f.upp, from)
		}
		at := min(low, upp) - f.rare
		if at+n > len(b) {
			return
		}
		from = at + f.rare + 1
		if f.is(b[at : at+n]) {
			from = max(from, found(at)+f.rare)
		}
	}
}

func (f *finder) is(b []byte) bool {
	for i := range len(f.literal) {
		if lower[b[i]] != f.literal[i] {
			return false
		}
	}
	return true
}
