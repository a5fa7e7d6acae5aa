package kubernetes

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// build renders a folder as `kubectl kustomize` does, and reads every object with Kubernetes' own types, in which no field may be unknown or
// there twice.
func build(t *testing.T, folder string) []runtime.Object {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatal(err)
	}
	all, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var objects []runtime.Object
	for _, doc := range bytes.Split(all, []byte("\n---\n")) {
		o, kind, err := strict.Decode(doc, nil, nil)
		if err != nil {
			t.Errorf("%s: %v\n%s", folder, err, doc)
			continue
		}
		t.Log(kind)
		objects = append(objects, o)
	}
	return objects
}

func TestManifests(t *testing.T) {
	const root = "../../kubernetes"
	var folders []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "kustomization.yaml" {
			folders = append(folders, filepath.Dir(path))
		}
		return err
	})
	if err != nil || len(folders) < 4 {
		t.Fatal(folders, err)
	}
	for _, folder := range folders {
		t.Run(strings.TrimPrefix(folder, root), func(t *testing.T) {
			for _, o := range build(t, folder) {
				switch o := o.(type) {
				case *appsv1.Deployment:
					pod(t, o.Name, &o.Spec.Template.Spec)
				case *appsv1.DaemonSet:
					pod(t, o.Name, &o.Spec.Template.Spec)
				}
			}
		})
	}
}

// pod wants what every container of weir has: nothing that it does not need.
func pod(t *testing.T, name string, spec *corev1.PodSpec) {
	t.Helper()
	bad := func(wrong bool, format string, args ...any) {
		t.Helper()
		if wrong {
			t.Errorf("%s: %s", name, fmt.Sprintf(format, args...))
		}
	}
	bad(spec.SecurityContext == nil || spec.SecurityContext.SeccompProfile == nil || spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault, "no seccomp profile")
	bad(spec.HostPID || spec.HostIPC, "shares processes with the host")
	for _, c := range spec.Containers {
		s := c.SecurityContext
		if s == nil || s.Capabilities == nil {
			t.Errorf("%s: no security context", name)
			continue
		}
		bad(s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem, "its root can be written to")
		bad(s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation, "may gain privileges")
		bad(len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL", "keeps capabilities: %v dropped", s.Capabilities.Drop)
		bad(s.Privileged != nil && *s.Privileged, "is privileged")
		bad(c.LivenessProbe == nil || c.ReadinessProbe == nil, "lacks a probe")
		bad(c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero(), "lacks a resource: %v", c.Resources)
		for _, m := range c.VolumeMounts {
			for _, v := range spec.Volumes {
				bad(v.Name == m.Name && v.HostPath != nil && !m.ReadOnly && !strings.HasPrefix(v.HostPath.Path, "/var/lib/weir/"), "writes to the host's %s", m.MountPath)
			}
		}
	}
}
