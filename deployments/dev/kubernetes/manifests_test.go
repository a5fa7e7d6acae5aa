package kubernetes

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
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

const root = "../../kubernetes"

func TestManifests(t *testing.T) {
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
			if filepath.Base(filepath.Dir(folder)) == "components" {
				folder = overlay(t, folder)
			}
			check(t, build(t, folder))
		})
	}
}

// overlay is a kustomization of what the component patches, and the component.
func overlay(t *testing.T, components ...string) string {
	t.Helper()
	dir := t.TempDir()
	from := func(folder string) string {
		t.Helper()
		absolute, err := filepath.Abs(folder)
		if err == nil {
			absolute, err = filepath.Rel(dir, absolute)
		}
		if err != nil {
			t.Fatal(err)
		}
		return absolute
	}
	text := fmt.Sprintf("resources: [%s]\ncomponents:\n", from(root+"/base"))
	for _, c := range components {
		text += "- " + from(c) + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// check wants every pod to have no more than it needs.
func check(t *testing.T, objects []runtime.Object) {
	t.Helper()
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			pod(t, o.Name, &o.Spec.Template.Spec)
		case *appsv1.DaemonSet:
			pod(t, o.Name, &o.Spec.Template.Spec)
		}
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
	bad(spec.ServiceAccountName == "" && (spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken), "has the token of an account that is not its own")
	may := map[string][]corev1.Capability{"agent": {"DAC_READ_SEARCH"}, "folder": {"CHOWN"}}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		s := c.SecurityContext
		if s == nil || s.Capabilities == nil {
			t.Errorf("%s: no security context", name)
			continue
		}
		bad(s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem, "its root can be written to")
		bad(s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation, "may gain privileges")
		bad(len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL", "keeps capabilities: %v dropped", s.Capabilities.Drop)
		bad(s.Privileged != nil && *s.Privileged, "is privileged")
		bad(!slices.Equal(s.Capabilities.Add, may[c.Name]), "has the capabilities %v", s.Capabilities.Add)
		bad(c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero(), "lacks a resource: %v", c.Resources)
		for _, m := range c.VolumeMounts {
			for _, v := range spec.Volumes {
				bad(v.Name == m.Name && v.HostPath != nil && !m.ReadOnly && !strings.HasPrefix(v.HostPath.Path, "/var/lib/weir/"), "writes to the host's %s", m.MountPath)
			}
		}
	}
	for _, c := range spec.Containers {
		bad(c.LivenessProbe == nil || c.ReadinessProbe == nil, "lacks a probe")
		for _, m := range c.VolumeMounts {
			bad(m.MountPath == "/var/run/docker.sock" && c.Name != "agent" && (spec.SecurityContext.RunAsNonRoot == nil || !*spec.SecurityContext.RunAsNonRoot || len(spec.SecurityContext.SupplementalGroups) != 1), "reaches the engine other than by its group")
		}
	}
}

// TestComponentsTogether has every pod of everything, with both executors, probed and scraped by TLS.
func TestComponentsTogether(t *testing.T) {
	objects := build(t, overlay(t, root+"/components/healing", root+"/components/healing-docker", root+"/components/tls"))
	check(t, objects)
	pods := map[string]*corev1.PodTemplateSpec{}
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			pods[o.Namespace+"/"+o.Name] = &o.Spec.Template
		case *appsv1.DaemonSet:
			pods[o.Namespace+"/"+o.Name] = &o.Spec.Template
		}
	}
	if want := []string{"weir-node/agent", "weir-node/executor", "weir/archiver", "weir/control", "weir/executor", "weir/indexer", "weir/processor"}; !slices.Equal(slices.Sorted(maps.Keys(pods)), want) {
		t.Errorf("%v, want %v", slices.Sorted(maps.Keys(pods)), want)
	}
	for name, p := range pods {
		c := p.Spec.Containers[0]
		if c.LivenessProbe.HTTPGet.Scheme != corev1.URISchemeHTTPS || c.ReadinessProbe.HTTPGet.Scheme != corev1.URISchemeHTTPS || p.Annotations["prometheus.io/scheme"] != "https" {
			t.Errorf("%s is probed or scraped in clear text", name)
		}
		cert := corev1.EnvVar{Name: "WEIR_HTTP_CERT_FILE", Value: "/etc/weir-tls/tls.crt"}
		if !slices.Contains(c.Env, cert) || !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/etc/weir-tls" && m.ReadOnly }) {
			t.Errorf("%s has no certificate", name)
		}
	}
}
