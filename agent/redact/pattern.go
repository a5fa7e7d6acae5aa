package redact

import (
	"bytes"
	"regexp"
)

// pattern records what the operator's own pattern matches. Matches that touch
// replacement text are passed over, or redacting twice would change it.
func (s *scan) pattern(re *regexp.Regexp, kind int) {
	if !re.Match(s.body) {
		return
	}
	markers := s.findMarkers()
	for _, match := range re.FindAllSubmatchIndex(s.body, -1) {
		start, end := match[0], match[1]
		if len(match) > 2 {
			start, end = match[2], match[3]
		}
		for len(markers) > 0 && markers[0][1] <= start {
			markers = markers[1:]
		}
		inMarker := len(markers) > 0 && markers[0][0] < end
		if end > start && !inMarker { // A group that took no part is -1, -1.
			s.addSecret(start, end, kind)
		}
	}
}

// findMarkers returns start and end of all replacement text in the body.
func (s *scan) findMarkers() (markers [][2]int) {
	b := s.body
	for i := 0; ; {
		n := bytes.Index(b[i:], []byte(markerPrefix))
		if n < 0 {
			return markers
		}
		i += n
		if length := s.markerLen(b[i:]); length > 0 {
			markers = append(markers, [2]int{i, i + length})
		}
		i += len(markerPrefix)
	}
}
