package multiline

import "bytes"

// A step is where in a trace a record is after its last line.
type step uint8

const (
	closed step = iota // nothing continues: a stream's start, a trace's last line, a JSON object
	plain              // a line that is part of no trace

	excHead   // an exception's class and message, of Java, .NET or Node; further lines of the message may follow
	excFrames // frames were seen

	nodeCode    // the position of an uncaught error: the line of code follows
	nodeCaret   // the code: the caret follows
	nodeMessage // the caret: the error follows, after a blank line or not
	nodeObject  // within the properties of an error
	nodeTail    // a blank line after an uncaught error: the version follows

	pyFrames // within a traceback
	pyEnd    // the exception of a traceback: a blank line and another traceback may follow
	pyBlank  // that blank line
	pyChain  // the sentence between two tracebacks
	pyGroup  // within an exception group

	goHead   // the message of a panic
	goFrames // the stacks
	goBlank  // a blank line between stacks

	dotnetConsole // a record of .NET's console logger: its indented lines follow

	rubyHead    // an exception's position and message
	rubySnippet // a blank line after it: the line of code may follow
	rubyCode    // the code: the caret follows
	rubyFrames  // frames were seen

	rustHead    // a panic's position: the message follows
	rustMessage // the message
	rustFrames  // within the backtrace
)

// inside says whether a line is what the trace may have next, and then moves the step on.
func inside(s *State, line []byte) bool {
	if recordLike(line) {
		return false
	}
	text := bytes.TrimLeft(line, " \t")
	next := plain
	switch {
	case s.step <= excFrames:
		next = inException(s, line, text)
	case s.step <= nodeTail:
		next = inNode(s, line, text)
	case s.step <= pyGroup:
		next = inPython(s.step, line, text)
	case s.step <= goBlank:
		next = inGo(s.step, line, text)
	case s.step == dotnetConsole:
		if has(line, "      ") {
			next = dotnetConsole
		}
	case s.step <= rubyFrames:
		next = inRuby(s.step, line, text)
	default:
		next = inRust(s.step, line, text)
	}
	if next == plain {
		return false
	}
	s.step = next
	return true
}

// inException and its likes give the step that the line leads to, or plain when it is no part of the trace. Text is
// the line without its indentation.
func inException(s *State, line, text []byte) step {
	indented := len(text) < len(line)
	switch {
	case len(text) == 0 && s.step == excHead:
		return excHead
	case len(text) == 0 && s.uncaught:
		return nodeTail
	case len(text) == 0:
		return plain
	case s.uncaught && has(line, "Node.js v"):
		return closed
	case s.uncaught && has(line, "(Use `node "):
		return excFrames
	case has(text, "Caused by:"), has(text, "Wrapped by: "), indented && (has(text, "Suppressed: ") || has(text, "---> ")):
		return excHead
	case has(text, "--- End of "), indented && more(text):
		return excFrames
	case indented && frame(text):
		return afterFrame(text)
	case indented && has(text, "[cause]: "):
		return nodeObject
	case indented && has(text, "[CIRCULAR REFERENCE"):
		return excFrames
	case indented && s.step == excHead:
		return excHead
	case s.step == excHead && has(line, "Stack backtrace:"):
		return rustFrames // of the anyhow crate, whose errors look like exceptions up to here
	}
	return plain
}

// inNode follows an uncaught error, and the properties of any error.
func inNode(s *State, line, text []byte) step {
	switch s.step {
	case nodeCode:
		if len(text) > 0 {
			return nodeCaret
		}
	case nodeCaret:
		if carets(line) {
			return nodeMessage
		}
	case nodeMessage:
		switch {
		case len(text) == 0:
			return nodeMessage
		case ends(text, " {"):
			return nodeObject
		}
		return excHead
	case nodeObject:
		switch {
		case len(text) < len(line):
			return nodeObject
		case has(line, "}"):
			return excFrames
		}
	case nodeTail:
		if has(line, "Node.js v") {
			return closed
		}
	}
	return plain
}

// inPython follows tracebacks, chains of them, and exception groups.
func inPython(at step, line, text []byte) step {
	indented := len(text) > 0 && len(text) < len(line)
	switch at {
	case pyFrames:
		switch {
		case indented && has(text, "+ Exception Group Traceback ("):
		case indented:
			return pyFrames
		case pyError(line):
			return pyEnd
		}
	case pyEnd:
		if len(text) == 0 {
			return pyBlank
		}
	case pyBlank:
		if has(line, "During handling of the above exception") || has(line, "The above exception was the direct cause") {
			return pyChain
		}
	case pyChain:
		switch {
		case len(text) == 0:
			return pyChain
		case has(line, "Traceback ("):
			return pyFrames
		case indented && has(text, "+ Exception Group Traceback ("):
			return pyGroup
		}
	case pyGroup:
		switch {
		case len(text) == 0:
			return pyBlank
		case indented && (text[0] == '|' || has(text, "+-")):
			return pyGroup
		}
	}
	return plain
}

// pyError says whether a line names the exception of a traceback: a class of any name, alone or before a colon.
func pyError(line []byte) bool {
	n := 0
	for n < len(line) && (nameBytes[line[n]] || line[n] == '<' || line[n] == '>' || line[n] >= 0x80) {
		n++
	}
	return n > 0 && (n == len(line) || line[n] == ':')
}

// inGo follows a panic's message and the stacks after it.
func inGo(at step, line, text []byte) step {
	switch {
	case len(text) == 0:
		if at == goFrames {
			return goBlank
		}
		if at == goHead {
			return goHead
		}
		return plain
	case goroutine(line), has(line, "runtime stack:"):
		return goFrames
	case has(line, "exit status "):
		return closed
	case register(line):
		return goFrames
	}
	if at == goBlank {
		return plain
	}
	switch {
	case line[0] == '\t', has(line, "[signal "), has(line, "PC="):
		return at
	case at == goFrames && (goCall(line) || has(line, "created by ") || has(line, "...") || has(line, "[originating from")):
		return goFrames
	}
	return plain
}

// inRuby follows an exception's message, the excerpt of the code, and the frames.
func inRuby(at step, line, text []byte) step {
	indented := len(text) < len(line)
	switch {
	case indented && from(text):
		return rubyFrames
	case at == rubyFrames:
		if indented && has(text, "... ") && ends(text, " levels...") {
			return rubyFrames
		}
		return plain
	case at == rubyHead && len(text) == 0:
		return rubySnippet
	case at == rubyHead && (indented || has(line, "Did you mean?")):
		return rubyHead
	case at == rubySnippet && len(text) > 0 && sourceLine(line) != rubyHead:
		return rubyCode
	case at == rubyCode && carets(line):
		return rubyHead
	}
	return plain
}

// inRust follows a panic's message and its backtrace.
func inRust(at step, line, text []byte) step {
	indented := len(text) > 0 && len(text) < len(line)
	switch {
	case at == rustHead:
		return rustMessage
	case has(line, "note: run with "), has(line, "note: Some details are omitted"):
		return closed
	case has(line, "stack backtrace:"):
		return rustFrames
	case at == rustMessage && indented:
		return rustMessage
	case at == rustFrames && indented:
		n := digits(text)
		if n > 0 && has(text[n:], ": ") || has(text, "at ") || has(text, "[... omitted ") {
			return rustFrames
		}
	}
	return plain
}
