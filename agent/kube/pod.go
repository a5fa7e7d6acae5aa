package kube

import (
	"maps"
	"slices"
	"strings"
)

// Pod is what a pod's object says of its logs. It does not change: a pod that changed is another Pod.
type Pod struct {
	UID        string // as the kubelet's folders have it
	Namespace  string
	Name       string
	Node       string
	Labels     map[string]string // and the annotations that begin with "weir."
	Owner      Owner
	Containers map[string]Container // by name
}

// Owner is what made the pod.
type Owner struct {
	Kind string // Deployment, ReplicaSet, StatefulSet, DaemonSet, Job or another
	Name string
}

// Container is one container of a pod, over its restarts.
type Container struct {
	Image    string
	Restarts int
	id       string // of the one that Restarts counts
	before   string // of the one before
}

// ID is the runtime's id of the container that was started after the given number of restarts. Where it is not known,
// settled tells that the API will not say it any more.
func (c Container) ID(restarts int) (id string, settled bool) {
	switch restarts {
	case c.Restarts:
		return c.id, c.id != ""
	case c.Restarts - 1:
		return c.before, true
	}
	return "", restarts < c.Restarts
}

// Bounds of what is kept. The API's objects have at most 1.5 MiB, of which the agent wants little.
const (
	maxObject     = 4 << 20
	maxPods       = 5000
	maxLabels     = 32 << 10 // bytes of a pod's labels
	maxName       = 1 << 10
	mirror        = "kubernetes.io/config.mirror"
	ours          = "weir." // annotations that count as labels, since the values of labels take neither commas nor equals signs
	templateLabel = "pod-template-hash"
)

// object is the part of a pod's JSON that is read.
type object struct {
	Metadata struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		UID             string            `json:"uid"`
		ResourceVersion string            `json:"resourceVersion"`
		Labels          map[string]string `json:"labels"`
		Annotations     map[string]string `json:"annotations"`
		OwnerReferences []struct {
			Kind       string `json:"kind"`
			Name       string `json:"name"`
			Controller bool   `json:"controller"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		NodeName            string      `json:"nodeName"`
		Containers          []container `json:"containers"`
		InitContainers      []container `json:"initContainers"`
		EphemeralContainers []container `json:"ephemeralContainers"`
	} `json:"spec"`
	Status struct {
		Containers          []status `json:"containerStatuses"`
		InitContainers      []status `json:"initContainerStatuses"`
		EphemeralContainers []status `json:"ephemeralContainerStatuses"`
	} `json:"status"`
}

type container struct {
	Name  string `json:"name"`
	Image string `json:"image"`
}

type status struct {
	Name         string `json:"name"`
	RestartCount int    `json:"restartCount"`
	ContainerID  string `json:"containerID"`
	LastState    struct {
		Terminated struct {
			ContainerID string `json:"containerID"`
		} `json:"terminated"`
	} `json:"lastState"`
}

// pod takes what is wanted. cut tells that the pod has more labels than are kept.
func (o *object) pod() (p *Pod, cut bool) {
	m := &o.Metadata
	p = &Pod{UID: clip(m.UID), Namespace: clip(m.Namespace), Name: clip(m.Name), Node: clip(o.Spec.NodeName), Labels: map[string]string{}, Containers: map[string]Container{}}
	if hash := m.Annotations[mirror]; hash != "" { // the image of a static pod, whose folders have the hash of its file for a uid
		p.UID = clip(hash)
	}
	labels := m.Labels
	for k, v := range m.Annotations {
		if strings.HasPrefix(k, ours) {
			if labels == nil {
				labels = map[string]string{}
			}
			labels[k] = v
		}
	}
	room := maxLabels
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		v := labels[k]
		if room -= len(k) + len(v); room < 0 {
			cut = true
			break
		}
		p.Labels[k] = v
	}
	for _, r := range m.OwnerReferences {
		if !r.Controller {
			continue
		}
		p.Owner = Owner{clip(r.Kind), clip(r.Name)}
		// A deployment's pods belong to a replica set that is named by the deployment and this label.
		if name, ok := strings.CutSuffix(r.Name, "-"+m.Labels[templateLabel]); ok && r.Kind == "ReplicaSet" && m.Labels[templateLabel] != "" {
			p.Owner = Owner{"Deployment", clip(name)}
		}
	}
	for _, all := range [][]container{o.Spec.Containers, o.Spec.InitContainers, o.Spec.EphemeralContainers} {
		for _, c := range all {
			p.Containers[clip(c.Name)] = Container{Image: clip(c.Image)}
		}
	}
	for _, all := range [][]status{o.Status.Containers, o.Status.InitContainers, o.Status.EphemeralContainers} {
		for _, s := range all {
			c, ok := p.Containers[clip(s.Name)]
			if !ok {
				continue
			}
			c.Restarts, c.id, c.before = s.RestartCount, bare(s.ContainerID), bare(s.LastState.Terminated.ContainerID)
			if c.before == c.id { // it waits to be started again: the last state is that of the container which is counted
				c.before = ""
			}
			p.Containers[clip(s.Name)] = c
		}
	}
	return p, cut
}

// bare takes the runtime's name from <runtime>://<id>.
func bare(id string) string {
	if _, after, ok := strings.Cut(id, "://"); ok {
		id = after
	}
	return clip(id)
}

func clip(s string) string {
	if len(s) > maxName {
		s = strings.ToValidUTF8(s[:maxName], "")
	}
	return strings.Clone(s) // so that a name does not hold the object that it was read from
}
