package multiline

import "bytes"

// A role is how a line outside of a trace's own sequence relates to the record before it.
type role uint8

const (
	starts  role = iota // a record
	belongs             // to whatever record is before it
	details             // a record before it that reports a warning or worse and is no trace yet
	dump                // of the stacks, belongs to a record before it that is no trace yet
)

// classify looks at a line that no trace expects: the step it leads to, and its role. The first byte decides about
// nearly all plain lines.
func (j *Joiner) classify(line []byte) (step, role) {
	if len(line) == 0 {
		return plain, starts
	}
	switch c := line[0]; c {
	case ' ', '\t':
		return j.indented(line)
	case '{':
		if len(line) > 2 && line[1] == '"' && line[len(line)-1] == '}' {
			return closed, starts
		}
	case '[':
		if j.langs&node != 0 && line[len(line)-1] == '{' && className(line[1:]) > 0 {
			return nodeObject, starts
		}
	case '-':
		if j.langs&dotnet != 0 && has(line, "--- End of ") {
			return excFrames, belongs
		}
	default:
		if letter(c) || c == '/' || c == '_' {
			return j.word(line)
		}
	}
	return plain, starts
}

// indented classifies a line that begins with a space or a tab.
func (j *Joiner) indented(line []byte) (step, role) {
	text := bytes.TrimLeft(line, " \t")
	if len(text) == 0 {
		return plain, starts
	}
	switch text[0] {
	case 'a':
		if j.langs&classes != 0 && frame(text) {
			return afterFrame(text), belongs
		}
	case '.':
		if j.langs&java != 0 && more(text) {
			return excFrames, belongs
		}
	case 'S', 'C':
		if j.langs&java != 0 && cause(text) {
			return excHead, belongs
		}
	case '-':
		if j.langs&dotnet != 0 && has(text, "---> ") && qualified(text[5:]) {
			return excHead, belongs
		}
		if j.langs&dotnet != 0 && has(text, "--- End of ") {
			return excFrames, belongs
		}
	case 'f':
		if j.langs&ruby != 0 && from(text) {
			return rubyFrames, belongs
		}
	case 'F':
		if j.langs&python != 0 && pyFile(text) {
			return pyFrames, starts
		}
	case '+':
		if j.langs&python != 0 && has(text, "+ Exception Group Traceback (") {
			return pyGroup, details
		}
	}
	return plain, starts
}

// word classifies a line that begins with a letter, an underscore or a slash: by the phrases that open a trace, then
// by its first name or path.
func (j *Joiner) word(line []byte) (step, role) {
	if next, r := j.phrase(line); next != plain {
		return next, r
	}
	if j.langs&(classes|rust) != 0 {
		if n := className(line); n > 0 {
			// A bare "Error: ..." is what many programs print for a message of its own.
			if j.langs&classes != 0 && n > len("Exception") {
				return excHead, details
			}
			return excHead, starts
		}
	}
	if j.langs&(ruby|node) != 0 {
		switch next := sourceLine(line); {
		case next == rubyHead && j.langs&ruby != 0, next == nodeCode && j.langs&node != 0:
			return next, starts
		}
	}
	return plain, starts
}

// phrase finds the fixed phrases with which a trace or a part of one begins.
func (j *Joiner) phrase(line []byte) (step, role) {
	switch line[0] {
	case 'T':
		if j.langs&python != 0 && has(line, "Traceback (most recent call last):") {
			return pyFrames, details
		}
	case 'E':
		if j.langs&java != 0 && has(line, `Exception in thread "`) {
			return excHead, starts
		}
	case 'C', 'W':
		if j.langs&java != 0 && cause(line) {
			return excHead, belongs
		}
	case 'U':
		if j.langs&dotnet != 0 && (has(line, "Unhandled exception. ") || has(line, "Unhandled Exception: ")) {
			return excHead, starts
		}
	case 'p', 'g':
		return j.goPhrase(line)
	case 'n':
		if j.langs&node != 0 && has(line, "node:") && numbered(line[5:]) {
			return nodeCode, starts
		}
	case 'S', 's':
		if j.langs&golang != 0 && has(line, "SIG") {
			return j.goPhrase(line)
		}
		if j.langs&rust != 0 && has(line[1:], "tack backtrace:") {
			return rustFrames, starts
		}
	case 'f', 't', 'i', 'w', 'd', 'c':
		return j.lowerPhrase(line)
	}
	return plain, starts
}

// lowerPhrase is the part of phrase for letters that several languages share.
func (j *Joiner) lowerPhrase(line []byte) (step, role) {
	switch {
	case j.langs&dotnet != 0 && consoleHead(line):
		return dotnetConsole, starts
	case j.langs&golang != 0 && has(line, "fatal error: "):
		return goHead, starts
	case j.langs&node != 0 && has(line, "file:///") && numbered(line[8:]):
		return nodeCode, starts
	case j.langs&rust != 0 && rustPanic(line):
		if line[len(line)-1] == ':' {
			return rustHead, starts
		}
		return rustMessage, starts
	}
	return plain, starts
}

func (j *Joiner) goPhrase(line []byte) (step, role) {
	switch {
	case j.langs&golang == 0:
	case has(line, "panic: "), has(line, "SIGQUIT: "), has(line, "SIGABRT: "), has(line, "SIGSEGV: "):
		return goHead, starts
	case goroutine(line):
		return goFrames, dump
	}
	return plain, starts
}
