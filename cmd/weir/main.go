// Command weir is every component of the pipeline in one binary. See `weir --help`.
package main

import (
	"os"

	_ "golang.org/x/crypto/x509roots/fallback" // the image has no authorities of its own

	"weir/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
