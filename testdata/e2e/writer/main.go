// Command writer is what the end-to-end tests' containers run: it writes numbered lines, then exits or waits to be removed.
// A line names the run too, since a container that is restarted begins anew.
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

func main() {
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
