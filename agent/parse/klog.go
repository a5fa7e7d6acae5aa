package parse

import (
	"bytes"

	"weir/schema"
)

// klog reads the header of klog and glog, Lmmdd hh:mm:ss.uuuuuu threadid file:line], and that of newer glogs, which
// write the year before the month.
func klog(b []byte, f *Fields) bool {
	var n int32
	switch b[0] {
	case 'I':
		n = schema.SeverityInfo
	case 'W':
		n = schema.SeverityWarn
	case 'E':
		n = schema.SeverityError
	case 'F':
		n = schema.SeverityFatal
	default:
		return false
	}
	const clock = " 00:00:00.000000 "
	at := 5
	if !shaped(b[1:], "0000"+clock) {
		if !shaped(b[1:], "00000000"+clock) {
			return false
		}
		at = 9
	}
	rest := bytes.TrimLeft(b[at+len(clock):], " ")
	thread, rest, ok := until(rest, ' ', 20)
	if _, number := decimal(thread); !ok || !number {
		return false
	}
	head, _, ok := until(rest, ']', 512)
	colon := bytes.LastIndexByte(head, ':')
	if !ok || colon <= 0 {
		return false
	}
	line, ok := decimal(head[colon+1:])
	if !ok {
		return false
	}
	f.Format = Klog
	f.setSeverity(n)
	f.attr(AttrFile, head[:colon])
	f.attrInt(AttrLine, line)
	return true
}
