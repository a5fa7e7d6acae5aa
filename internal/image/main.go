// Command image makes weir's container image from the binary alone, as a file for `docker load` or `ctr images import`, and the list of what the
// binary is made of (CycloneDX, also in the image as /sbom.cdx.json). The same binary and name give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// user is none of the host's; the agent's manifest sets another.
const user = "65532:65532"

func main() {
	binary := flag.String("binary", "bin/weir", "what the image runs, linked statically")
	out := flag.String("o", "bin/weir-image.tar", "the image")
	tag := flag.String("tag", "weir:dev", "its name")
	sbom := flag.String("sbom", "bin/weir.sbom.cdx.json", "the list of modules")
	flag.Parse()
	if err := build(*binary, *out, *tag, *sbom); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func build(binary, out, tag, sbom string) error {
	ref, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	parts, err := modules(program)
	if err != nil {
		return fmt.Errorf("%s: %w", binary, err)
	}
	if err := os.WriteFile(sbom, parts, 0o644); err != nil {
		return err
	}
	files, err := layer(file{"weir", 0o755, program}, file{"sbom.cdx.json", 0o644, parts}, file{"etc/passwd", 0o644, []byte("weir:x:65532:65532::/:/weir\n")})
	if err != nil {
		return err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil })
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return err
	}
	image, err = mutate.ConfigFile(image, configured(image))
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(out, ref, image); err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s, %s\n", out, ref, digest)
	return nil
}

func configured(image v1.Image) *v1.ConfigFile {
	c, err := image.ConfigFile()
	if err != nil {
		panic(err) // of an image in memory
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Created = "linux", runtime.GOARCH, v1.Time{Time: time.Unix(0, 0).UTC()}
	c.Config = v1.Config{Entrypoint: []string{"/weir"}, User: user, WorkingDir: "/", Labels: map[string]string{"org.opencontainers.image.title": "weir"}}
	return c
}

type file struct {
	name    string
	mode    int64
	content []byte
}

func layer(files ...file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

type component struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
}

// modules lists what the linker wrote into the binary, as CycloneDX 1.5 (https://cyclonedx.org/docs/1.5/json/).
func modules(program []byte) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	all := []component{{Type: "library", Name: "std", Version: info.GoVersion, PURL: "pkg:golang/std@" + info.GoVersion}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all = append(all, component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version})
	}
	b, err := json.MarshalIndent(map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
		"metadata":   map[string]any{"component": component{Type: "application", Name: "weir", Version: info.Main.Version, PURL: "pkg:golang/weir@" + info.Main.Version}},
		"components": all,
	}, "", " ")
	return append(b, '\n'), err
}
