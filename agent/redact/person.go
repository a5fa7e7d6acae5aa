package redact

import (
	"bytes"
	"time"
)

// residentLen is the length in characters of a resident id (GB 11643-1999):
// six digits of the place, eight of the birth date, three in sequence and a
// check character.
const residentLen = 18

// provinces holds the first two digits of the places of GB/T 2260, and 83 and
// 91 of the permits for residents of Taiwan and for foreigners.
var provinces = func() (known [100]bool) {
	for _, span := range [][2]int{
		{11, 15}, {21, 23}, {31, 37}, {41, 46}, {50, 54}, {61, 65}, {71, 71}, {81, 83}, {91, 91},
	} {
		for code := span[0]; code <= span[1]; code++ {
			known[code] = true
		}
	}
	return known
}()

// residentWeights are 2^(17-i) mod 11, of ISO 7064 MOD 11-2.
var residentWeights = [residentLen - 1]int{7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2}

// residentID records the id that begins with the run body[start:end], and
// returns its end, or 0. The last character is an X in one id of eleven.
func (s *scan) residentID(start, end int) int {
	if end-start == residentLen-1 && end < len(s.body) && s.body[end]|0x20 == 'x' {
		end++
	}
	if end-start != residentLen || !hasRightEdge(s.body, end) || !isResidentID(s.body[start:end]) {
		return 0
	}
	s.addSecret(start, end, kindResidentID)
	return end
}

func isResidentID(id []byte) bool {
	if !provinces[decimal(id[:2])] || !isBirthDate(decimal(id[6:10]), decimal(id[10:12]), decimal(id[12:14])) {
		return false
	}
	sum := 0
	for i, weight := range residentWeights {
		sum += int(id[i]-'0') * weight
	}
	return "10X98765432"[sum%11] == bytes.ToUpper(id[residentLen-1:])[0]
}

// isBirthDate reports whether somebody alive or recently dead may be born then.
func isBirthDate(year, month, day int) bool {
	date := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	// time.Date moves a 30th of February into March, which gives it away. A
	// day of slack covers the places that are ahead of UTC.
	return year >= 1900 && date.Month() == time.Month(month) && date.Day() == day &&
		date.Before(time.Now().AddDate(0, 0, 1))
}

func decimal(digits []byte) int {
	n := 0
	for _, c := range digits {
		n = n*10 + int(c-'0')
	}
	return n
}

// mobile records the run body[start:end] if it is a Chinese mobile number, of
// eleven digits, or fifteen with the prefix 0086 in front.
func (s *scan) mobile(start, end int) bool {
	number := s.body[start:end]
	if len(number) == 15 {
		var prefixed bool
		if number, prefixed = bytes.CutPrefix(number, []byte("0086")); !prefixed {
			return false
		}
	}
	if len(number) != 11 || number[0] != '1' || number[1] < '3' || !hasRightEdge(s.body, end) {
		return false
	}
	s.addSecret(callingCodeStart(s.body, start), end, kindPhone)
	return true
}

// callingCodeStart returns where the calling code of China in front of the
// mobile number at i begins, or i.
func callingCodeStart(b []byte, i int) int {
	for _, code := range []string{"+86 ", "+86-", "0086 ", "0086-", "86-"} {
		at := i - len(code)
		if at >= 0 && string(b[at:i]) == code && (code[0] == '+' || hasLeftEdge(b, at)) {
			return at
		}
	}
	return i
}

// internationalPhones finds a plus sign and 8 to 15 digits (ITU-T E.164).
func (s *scan) internationalPhones() {
	b := s.body
	for i := 0; ; {
		plus := bytes.IndexByte(b[i:], '+')
		if plus < 0 {
			return
		}
		i += plus + 1
		start := i
		for i < len(b) && isDigit(b[i]) {
			i++
		}
		if n := i - start; n >= 8 && n <= 15 && b[start] != '0' && hasRightEdge(b, i) {
			s.addSecret(start-1, i, kindPhone)
		}
	}
}
