package redact

const longestCard = 19

// issuer is a range of issuer identification numbers (ISO/IEC 7812-1) by the
// first four digits of the card, and the lengths in digits its cards have.
type issuer struct {
	from, to int
	lengths  uint32 // Bit n is set if cards have n digits.
}

const (
	digits13      = 1 << 13
	digits14      = 1 << 14
	digits15      = 1 << 15
	digits16      = 1 << 16
	digits19      = 1 << 19
	digits16To19  = digits16 | 1<<17 | 1<<18 | digits19
	dinersLengths = digits14 | digits16To19
)

// issuers lists the ranges of the networks, by the first digit of the card so
// that most numbers are turned away by their first digit.
var issuers = [10][]issuer{
	2: {
		{2200, 2204, digits16To19}, // Mir
		{2221, 2720, digits16},     // Mastercard
	},
	3: {
		{3000, 3059, dinersLengths},
		{3400, 3499, digits15},     // American Express
		{3528, 3589, digits16To19}, // JCB
		{3600, 3699, dinersLengths},
		{3700, 3799, digits15}, // American Express
		{3800, 3899, dinersLengths},
	},
	4: {{4000, 4999, digits13 | digits16 | digits19}}, // Visa
	5: {{5100, 5599, digits16}},                       // Mastercard
	6: {
		{6011, 6011, digits16To19}, // Discover
		{6000, 6099, digits16},     // Discover and RuPay
		{6200, 6299, digits16To19}, // UnionPay
		{6440, 6599, digits16To19}, // Discover
	},
	8: {{8100, 8171, digits16To19}}, // UnionPay
}

// cardLayouts are the groups in which card numbers are written, longest first
// so that a card of 19 digits is not taken for one of 16 and a remainder.
var cardLayouts = [][]int{
	{4, 4, 4, 4, 3}, {4, 4, 4, 4, 2}, {4, 4, 4, 4, 1}, {4, 4, 4, 4},
	{4, 6, 5}, {4, 6, 4}, {4, 3, 3, 3}, {6, 13},
}

// card records the card number that begins with the run body[start:end], and
// returns its end, or 0.
func (s *scan) card(start, end int) int {
	b, length := s.body, end-start
	if length < 4 || issuers[b[start]-'0'] == nil {
		return 0
	}
	if length >= shortestCard && length <= longestCard {
		if s.cardIn(start, end) {
			return end
		}
	} else if (length == 4 || length == 6) && end < len(b) && isSeparator(b[end]) {
		return s.groupedCard(start, end)
	}
	return 0
}

// groupedCard is card for a number in groups with one kind of separator.
func (s *scan) groupedCard(start, end int) int {
	var lengths, ends [5]int
	b, separator, groups := s.body, s.body[end], 0
	for from := start; groups < len(ends); from = end + 1 {
		end = from
		for end < len(b) && end-from <= longestCard && isDigit(b[end]) {
			end++
		}
		if end == from {
			break
		}
		lengths[groups], ends[groups] = end-from, end
		groups++
		if end >= len(b) || b[end] != separator {
			break
		}
	}
	for _, layout := range cardLayouts {
		if last := len(layout) - 1; last < groups && isLayout(lengths[:], layout) && s.cardIn(start, ends[last]) {
			return ends[last]
		}
	}
	return 0
}

func isLayout(lengths, layout []int) bool {
	for i, n := range layout {
		if lengths[i] != n {
			return false
		}
	}
	return true
}

// cardIn records body[start:end], digits and separators, if it is the number
// of a card.
func (s *scan) cardIn(start, end int) bool {
	if !hasRightEdge(s.body, end) {
		return false
	}
	var number [longestCard]byte
	n := 0
	for _, c := range s.body[start:end] {
		if isDigit(c) {
			number[n] = c - '0'
			n++
		}
	}
	digits := number[:n]
	if !isIssued(digits) || !isLuhn(digits) {
		return false
	}
	found := span{start: start, end: end, kind: kindCard}
	for i, d := range digits[n-4:] {
		found.lastFour[i] = d + '0'
	}
	s.add(found)
	return true
}

// isIssued reports whether an issuer has numbers of these digits' beginning
// and length. No issuer has thirteen digits and a first digit 1 or 2, so the
// epoch milliseconds of 2001 to 2040 are never cards.
func isIssued(digits []byte) bool {
	prefix := 0
	for _, d := range digits[:4] {
		prefix = prefix*10 + int(d)
	}
	for _, is := range issuers[digits[0]] {
		if prefix >= is.from && prefix <= is.to && is.lengths>>len(digits)&1 == 1 {
			return true
		}
	}
	return false
}

// isLuhn checks the check digit of ISO/IEC 7812-1 annex B.
func isLuhn(digits []byte) bool {
	sum, double := 0, false
	for i := len(digits) - 1; i >= 0; i-- {
		d := int(digits[i])
		if double {
			d *= 2
			if d > 9 {
				d -= 9
			}
		}
		sum += d
		double = !double
	}
	return sum%10 == 0
}
