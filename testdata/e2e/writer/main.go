// Command writer is what the end-to-end tests' containers run: it writes numbered lines, then exits or waits to be removed.
// A line names the run too, since a container that is restarted begins anew. With CRASHES it fails at its first so many starts,
// which it counts in /data; with LOCK it leaves a file behind at its first start and fails as long as that is there.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// crash ends the process if it was not started often enough yet.
func crash(times int) {
	const counter = "/data/starts"
	b, _ := os.ReadFile(counter)
	started, _ := strconv.Atoi(string(b))
	if started < times {
		if err := os.WriteFile(counter, []byte(strconv.Itoa(started+1)), 0o644); err != nil {
			fmt.Println(err)
		}
		os.Exit(1)
	}
}

// lock fails where a file is left of an earlier run, and leaves one at the first.
func lock() {
	_, locked := os.Stat("/lock")
	_, again := os.Stat("/data/again")
	if again == nil && locked != nil {
		return
	}
	for _, name := range []string{"/lock", "/data/again"} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			fmt.Println(err)
		}
	}
	os.Exit(1)
}

func main() {
	if os.Getenv("LOCK") != "" {
		lock()
	}
	crash(number("CRASHES", 0))
	lines, seconds := number("LINES", 1000), number("SECONDS", 10)
	out, errs := bufio.NewWriter(os.Stdout), bufio.NewWriter(os.Stderr)
	short, long := strings.Repeat("abcdefghij", 18), strings.Repeat("0123456789", 4100)
	start := time.Now()
	for i := range lines {
		w := out
		if i%7 == 0 {
			w = errs
		}
		padding := short
		if i%500 == 499 {
			padding = long // over two of Docker's 16 KiB pieces
		}
		fmt.Fprintf(w, "n=%d run=%d %s\n", i, start.UnixNano(), padding)
		if i%50 == 49 {
			out.Flush()
			errs.Flush()
			time.Sleep(time.Until(start.Add(time.Duration(seconds) * time.Second * time.Duration(i) / time.Duration(lines))))
		}
	}
	out.Flush()
	errs.Flush()
	if os.Getenv("WAIT") != "" {
		time.Sleep(time.Hour)
	}
	os.Exit(number("EXIT", 0))
}
