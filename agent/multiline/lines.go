package multiline

import "bytes"

// maxName bounds the scan for a name at a line's start, so that a line without spaces costs no more than others.
const maxName = 200

// nameBytes are those of a qualified class name.
var nameBytes = func() (t [256]bool) {
	for c := range t {
		t[c] = letter(byte(c)) || digit(byte(c)) || c == '_' || c == '.' || c == '$'
	}
	return t
}()

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func digit(c byte) bool { return '0' <= c && c <= '9' }

func has(line []byte, prefix string) bool {
	return len(line) >= len(prefix) && string(line[:len(prefix)]) == prefix
}

func ends(line []byte, suffix string) bool {
	return len(line) >= len(suffix) && string(line[len(line)-len(suffix):]) == suffix
}

// digits counts those at the start of a text.
func digits(text []byte) int {
	n := 0
	for n < len(text) && digit(text[n]) {
		n++
	}
	return n
}

// numbered says whether a text has no spaces and ends with a colon and digits, as a source position does.
func numbered(text []byte) bool {
	if len(text) == 0 || !digit(text[len(text)-1]) {
		return false
	}
	n := len(text)
	for n > 0 && digit(text[n-1]) {
		n--
	}
	return n > 1 && text[n-1] == ':' && bytes.IndexByte(text, ' ') < 0
}

// nameEnd is the length of the name at a line's start.
func nameEnd(line []byte) int {
	n := 0
	for n < len(line) && n < maxName && nameBytes[line[n]] {
		n++
	}
	return n
}

// errorName says whether a name is one that exceptions have by convention in every language.
func errorName(name []byte) bool {
	return ends(name, "Error") || ends(name, "Exception") || ends(name, "Throwable")
}

// className is the length of an exception's class name when the line begins with one that is alone, or before a colon,
// or before a code in brackets as Node prints it; else 0.
func className(line []byte) int {
	n := nameEnd(line)
	if n == 0 || digit(line[0]) || !errorName(line[:n]) {
		return 0
	}
	if n == len(line) || line[n] == ':' || has(line[n:], " [") {
		return n
	}
	return 0
}

// qualified says whether a text begins with what can only be a class name: one with dots, or an exception's.
func qualified(text []byte) bool {
	n := nameEnd(text)
	if n == 0 || n < len(text) && text[n] != ':' {
		return false
	}
	dot := bytes.IndexByte(text[:n], '.')
	return dot > 0 && dot < n-1 || errorName(text[:n])
}

// cause says whether a text, its indentation removed, names a further exception of a Java trace.
func cause(text []byte) bool {
	for _, prefix := range [...]string{"Caused by: ", "Suppressed: ", "Wrapped by: "} {
		if has(text, prefix) {
			return qualified(text[len(prefix):])
		}
	}
	return false
}

// more says whether a text stands for frames that a Java trace leaves out.
func more(text []byte) bool {
	if !has(text, "... ") {
		return false
	}
	n := digits(text[4:])
	return n > 0 && (has(text[4+n:], " more") || has(text[4+n:], " common frames omitted"))
}

// frame says whether a text, its indentation removed, is a frame of Java, .NET or Node: a call with parentheses, a
// name and a position in parentheses, or a position alone. Prose that happens to begin with "at" is none of these.
func frame(text []byte) bool {
	if !has(text, "at ") {
		return false
	}
	text = text[3:]
	if call(text) {
		return true
	}
	if ends(text, " {") {
		text = text[:len(text)-2]
	}
	if ends(text, ")") {
		if open := bytes.LastIndex(text, []byte(" (")); open > 0 && place(text[open+2:len(text)-1]) {
			return true
		}
	}
	if has(text, "async ") {
		text = text[6:]
	}
	return call(text) || numbered(text) && bytes.IndexByte(text, '/') >= 0
}

// call says whether a text's first word has a parenthesis within.
func call(text []byte) bool {
	open := bytes.IndexByte(text, '(')
	return open > 0 && bytes.IndexByte(text[:open], ' ') < 0
}

// place says whether the text in a Node frame's parentheses is one.
func place(text []byte) bool {
	if ends(text, "<anonymous>") {
		return true
	}
	n := len(text)
	for n > 0 && digit(text[n-1]) {
		n--
	}
	return n > 0 && n < len(text) && (text[n-1] == ':' || string(text[:n]) == "index ")
}

// afterFrame knows that Node opens an object of the error's other properties at the end of the last frame.
func afterFrame(text []byte) step {
	if ends(text, " {") {
		return nodeObject
	}
	return excFrames
}

// from says whether a text, its indentation removed, is a frame of Ruby.
func from(text []byte) bool {
	return has(text, "from ") && bytes.Contains(text, []byte(":in "))
}

// pyFile says whether a text, its indentation removed, is the first line of a Python frame.
func pyFile(text []byte) bool {
	return has(text, `File "`) && bytes.Contains(text[6:], []byte(`", line `))
}

// sourceLine finds a position in a source file at a line's start: Ruby's of an uncaught exception, with the method and
// the message after it, or Node's, which stands alone.
func sourceLine(line []byte) step {
	n := nameEnd(line)
	for n < len(line) && n < maxName && line[n] != ' ' && line[n] != ':' && line[n] != '=' {
		n++
	}
	if n == len(line) || line[n] != ':' {
		return plain
	}
	path, rest := line[:n], line[n+1:]
	number := digits(rest)
	if number == 0 {
		return plain
	}
	rest = rest[number:]
	switch {
	case ends(path, ".rb") && has(rest, ":in "):
		return rubyHead
	case len(rest) == 0 && (ends(path, ".js") || ends(path, ".cjs") || ends(path, ".mjs") || ends(path, ".ts")):
		return nodeCode
	}
	return plain
}

// rustPanic says whether a line is the first one of a panic.
func rustPanic(line []byte) bool {
	return has(line, "thread ") && bytes.Contains(line, []byte(" panicked at "))
}

// consoleHead says whether a line is the first one of a record of .NET's console logger, which puts the message on
// lines of its own.
func consoleHead(line []byte) bool {
	return shortLevel(line) && line[len(line)-1] == ']' && len(line) > 8
}

// goroutine says whether a line heads a goroutine's stack.
func goroutine(line []byte) bool {
	return has(line, "goroutine ") && len(line) > 10 && digit(line[10]) && ends(line, "]:")
}

// goCall says whether a line is the call of a Go frame, whose function name always has its package before it.
func goCall(line []byte) bool {
	open := bytes.IndexByte(line, '(')
	if open <= 0 || line[len(line)-1] != ')' || bytes.IndexByte(line[:open], ' ') >= 0 {
		return false
	}
	return string(line[:open]) == "panic" || bytes.IndexByte(line[:open], '.') > 0
}

// register says whether a line is one of the registers that Go prints at a fatal signal.
func register(line []byte) bool {
	n := nameEnd(line)
	return n > 1 && n < 8 && letter(line[0]) && has(line[n:], " ") && has(bytes.TrimLeft(line[n:], " "), "0x")
}

// carets says whether a line only points at a part of the line above it.
func carets(line []byte) bool {
	text := bytes.Trim(line, " \t")
	for _, c := range text {
		if c != '^' && c != '~' {
			return false
		}
	}
	return len(text) > 0
}
