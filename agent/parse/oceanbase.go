package parse

import (
	"bytes"

	"weir/schema"
)

// oceanbase reads lines of OceanBase's observer.log, [time] LEVEL [MODULE] function (file:line) [thread][name][tenant]
// [trace id] text, in which version 3 has no function and obproxy no tenant. Without a thread's number and a trace id
// in brackets the line may be any program's.
func oceanbase(b []byte, f *Fields) bool {
	const stamp = "[0000-00-00 00:00:00.000000] "
	if !shaped(b, stamp) {
		return false
	}
	rest := b[len(stamp):]
	level, rest, ok := until(rest, ' ', 12)
	if !ok {
		return false
	}
	n := oceanbaseLevel(level)
	if n == 0 {
		return false
	}
	rest = bytes.TrimLeft(rest, " ")
	module, after := bracketed(rest)
	if after != nil && len(module) > 0 && upper(module[0]) {
		rest = after
	} else {
		module = nil
	}
	thread, trace, ok := oceanbaseIDs(rest)
	if !ok {
		return false
	}
	f.Format = OceanBase
	f.setSeverity(n)
	if module != nil {
		f.attr(AttrOceanBaseMod, module)
	}
	if !nullTrace(trace) {
		f.attr(AttrOceanBaseTrace, trace)
	}
	f.attrInt(AttrThread, thread)
	return true
}

// oceanbaseLevel gives the severity of a level of OceanBase. EDIAG and WDIAG are errors and warnings that are meant for
// those who develop it, and USER_ERROR those that a statement caused.
func oceanbaseLevel(w []byte) int32 {
	switch string(w) {
	case "ERROR", "EDIAG", "USER_ERROR", "USER_ERR":
		return schema.SeverityError
	case "WARN", "WDIAG":
		return schema.SeverityWarn
	case "INFO":
		return schema.SeverityInfo
	case "TRACE":
		return schema.SeverityTrace
	case "DEBUG":
		return schema.SeverityDebug
	}
	return 0
}

// oceanbaseIDs finds the groups in brackets of which the first is the thread's number, and in them the trace id, which
// begins with Y. The thread's name between them is free text, so it is not searched.
func oceanbaseIDs(b []byte) (thread int64, trace []byte, ok bool) {
	for range 8 { // a function's signature may have brackets of its own
		var head []byte
		head, b, ok = until(b, '[', 512)
		if !ok || bytes.IndexByte(head, '"') >= 0 {
			return 0, nil, false
		}
		group, after, found := until(b, ']', 128)
		if !found {
			return 0, nil, false
		}
		if thread, ok = decimal(group); !ok {
			continue
		}
		for range 3 {
			if group, after = bracketed(after); after == nil {
				return 0, nil, false
			}
			if len(group) >= 3 && group[0] == 'Y' && bytes.IndexByte(group, '-') > 0 {
				return thread, group, true
			}
		}
		return 0, nil, false
	}
	return 0, nil, false
}

// bracketed gives what stands in the brackets with which b begins, and what follows them; rest is nil when it does not.
func bracketed(b []byte) (group, rest []byte) {
	if len(b) == 0 || b[0] != '[' {
		return nil, nil
	}
	group, rest, ok := until(b[1:], ']', 128)
	if !ok {
		return nil, nil
	}
	return group, rest
}

// nullTrace recognises the id of work that belongs to no statement, Y0-0000000000000000-0-0, which most lines have.
func nullTrace(b []byte) bool {
	for _, c := range b[1:] {
		if c != '0' && c != '-' {
			return false
		}
	}
	return true
}
