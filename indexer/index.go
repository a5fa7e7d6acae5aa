package indexer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// IndexVersion is the version of the index design. It rises with every change of Fields or of what objects makes.
const IndexVersion = 3

// Custom is the component template that is the operator's: weir never writes it, and what it says goes over weir's own.
const Custom = "weir@custom"

// features are what the cluster can do; field types and lifecycles are not in every build and offering.
type features struct {
	types map[string]bool
	ilm   bool
}

// mapping chooses the cluster's field type for ours.
func (f *features) mapping(t Type) map[string]any {
	pick := func(best string, otherwise map[string]any) map[string]any {
		if f.types[best] {
			return map[string]any{"type": best}
		}
		return otherwise
	}
	// A keyword of more than 32,766 bytes would have its document refused; past ignore_above it is in the source only.
	keyword := map[string]any{"type": "keyword", "ignore_above": 1024}
	switch t {
	case Constant:
		return pick("constant_keyword", keyword)
	case Wildcard:
		return pick("wildcard", keyword)
	case Text:
		return pick("match_only_text", map[string]any{"type": "text", "norms": false})
	case Long:
		return map[string]any{"type": "long"}
	case Boolean:
		return map[string]any{"type": "boolean"}
	case Time:
		return map[string]any{"type": "date_nanos"}
	case Flattened:
		return map[string]any{"type": "flattened", "ignore_above": 4096} // with the key, below 32,766 bytes
	}
	return keyword
}

// properties makes the mapping of all fields.
func (f *features) properties() map[string]any {
	root := map[string]any{}
	for i := range Fields {
		at, path := root, strings.Split(Fields[i].Name, ".")
		for _, name := range path[:len(path)-1] {
			if at[name] == nil {
				at[name] = map[string]any{"properties": map[string]any{}}
			}
			at = at[name].(map[string]any)["properties"].(map[string]any)
		}
		at[path[len(path)-1]] = f.mapping(Fields[i].Type)
	}
	return root
}

// object is one thing that is installed.
type object struct {
	kind, path string
	body       map[string]any
	read       func(answer map[string]any) any // the object in the answer to a GET
	write      func(body map[string]any) any   // the body of a PUT
}

func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// objects are all of the index design, in the order in which they are installed. Settings stand as Elasticsearch gives them back.
func objects(l *Lifecycle, f *features) []object {
	meta := map[string]any{"managed_by": "weir", "version": IndexVersion}
	same := func(body map[string]any) any { return body }
	template := func(kind, name string, body map[string]any) object {
		body["version"], body["_meta"] = IndexVersion, meta
		return object{kind: strings.ReplaceAll(kind, "_", " "), path: "/_" + kind + "/" + name, body: body, write: same,
			read: func(answer map[string]any) any { return at(answer, kind+"s", 0, kind) }}
	}
	index := map[string]any{
		"number_of_shards": "1", "auto_expand_replicas": "0-1",
		"codec":            "best_compression",
		"refresh_interval": "1s", // said, so that an index that nobody searched for a while is refreshed too
	}
	var all []object
	if f.ilm {
		index["lifecycle"] = map[string]any{"name": "weir"}
		all = append(all, object{kind: "lifecycle policy", path: "/_ilm/policy/weir", body: map[string]any{"phases": l.phases(), "_meta": meta},
			write: func(body map[string]any) any { return map[string]any{"policy": body} },
			read:  func(answer map[string]any) any { return at(answer, "weir", "policy") }})
	}
	return append(all,
		// Not strict: a field that an operator's pipeline or a newer build adds is kept in the source, and no reason to refuse a
		// record. Not true: what is in a log must not make fields.
		template("component_template", "weir@mappings", map[string]any{"template": map[string]any{"mappings": map[string]any{"dynamic": "false", "date_detection": false, "properties": f.properties()}}}),
		template("component_template", "weir@settings", map[string]any{"template": map[string]any{"settings": map[string]any{"index": index}}}),
		template("index_template", "weir", map[string]any{"index_patterns": []any{"logs-weir.*-*"}, "priority": 250, "composed_of": []any{"weir@mappings", "weir@settings", Custom},
			"ignore_missing_component_templates": []any{Custom}, "data_stream": map[string]any{"hidden": false, "allow_custom_routing": false}}))
}

func (l *Lifecycle) phases() map[string]any {
	priority := func(n int) map[string]any { return map[string]any{"priority": n} }
	phases := map[string]any{"hot": map[string]any{"min_age": "0ms", "actions": map[string]any{
		"rollover": map[string]any{"max_primary_shard_size": l.RolloverSize, "max_age": l.RolloverAge}, "set_priority": priority(100)}}}
	if l.WarmAfter != "" {
		phases["warm"] = map[string]any{"min_age": l.WarmAfter, "actions": map[string]any{"forcemerge": map[string]any{"max_num_segments": 1}, "set_priority": priority(50)}}
	}
	if l.ColdAfter != "" {
		phases["cold"] = map[string]any{"min_age": l.ColdAfter, "actions": map[string]any{"readonly": map[string]any{}, "set_priority": priority(0)}}
	}
	if l.DeleteAfter != "" {
		phases["delete"] = map[string]any{"min_age": l.DeleteAfter, "actions": map[string]any{"delete": map[string]any{"delete_searchable_snapshot": true}}}
	}
	return phases
}

// probe asks the cluster what it can do.
func (c *Cluster) probe(ctx context.Context) (*features, error) {
	f := &features{types: map[string]bool{}}
	for _, t := range []string{"match_only_text", "wildcard", "constant_keyword"} {
		body := `{"index_patterns":["logs-weir.probe-*"],"priority":251,"template":{"mappings":{"properties":{"f":{"type":"` + t + `"}}}}}`
		err := c.call(ctx, http.MethodPost, "/_index_template/_simulate", body, nil)
		if err != nil && code(err) != http.StatusBadRequest {
			return nil, err
		}
		f.types[t] = err == nil
	}
	err := c.call(ctx, http.MethodGet, "/_ilm/policy/weir", "", nil)
	switch code(err) {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusGone: // there is no such API
	case 0:
		if err != nil {
			return nil, err
		}
		f.ilm = true
	case http.StatusNotFound:
		f.ilm = true
	default:
		return nil, err
	}
	return f, nil
}

// IndexChange is one step of a plan.
type IndexChange struct {
	Kind, Name string
	Have       int      // version in the cluster, 0 where there is none
	Lines      []string // how it differs: "+ path: new", "- path: old", "~ path: old → new"
	put        []byte
	path       string
}

// Newer tells whether the cluster has a version that this build does not know.
func (c *IndexChange) Newer() bool { return c.Have > IndexVersion }

// IndexPlan is what apply would do.
type IndexPlan struct {
	Changes  []IndexChange // also those without a difference
	Rollover []string      // data streams that go on in a new index, which alone has new mappings and settings
	Notes    []string      // what the cluster lacks
}

// Newer lists what apply would overwrite although it is newer.
func (p *IndexPlan) Newer() []string {
	var names []string
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Newer() {
			names = append(names, fmt.Sprintf("%s %s (version %d)", c.Kind, c.Name, c.Have))
		}
	}
	return names
}

// PlanIndex compares the cluster with the index design.
func (c *Cluster) PlanIndex(ctx context.Context) (*IndexPlan, error) {
	f, err := c.probe(ctx)
	if err != nil {
		return nil, err
	}
	p := &IndexPlan{}
	for _, t := range slices.Sorted(maps.Keys(f.types)) {
		if !f.types[t] {
			p.Notes = append(p.Notes, "the cluster has no field type "+t+": the plain one is used")
		}
	}
	if !f.ilm {
		p.Notes = append(p.Notes, "the cluster has no index lifecycle management: indices are neither rolled over nor deleted")
	}
	changed := false
	for _, o := range objects(&c.cfg.Lifecycle, f) {
		change, err := c.compare(ctx, &o)
		if err != nil {
			return nil, err
		}
		changed = changed || len(change.Lines) > 0 && o.kind != "lifecycle policy"
		p.Changes = append(p.Changes, change)
	}
	if changed {
		p.Rollover, err = c.streams(ctx)
	}
	return p, err
}

func (c *Cluster) compare(ctx context.Context, o *object) (IndexChange, error) {
	change := IndexChange{Kind: o.kind, Name: o.path[strings.LastIndexByte(o.path, '/')+1:], path: o.path}
	var err error
	if change.put, err = json.Marshal(o.write(o.body)); err != nil {
		return change, err
	}
	var answer map[string]any
	if err := c.call(ctx, http.MethodGet, o.path, "", &answer); err != nil && code(err) != http.StatusNotFound {
		return change, err
	}
	have, want := map[string]string{}, map[string]string{}
	installed := o.read(answer)
	leaves("", installed, have)
	leaves("", o.body, want)
	for _, key := range []string{"_meta.version", "version"} {
		if v, err := strconv.Atoi(have[key]); err == nil {
			change.Have = max(change.Have, v)
		}
	}
	if installed != nil && change.Have == 0 {
		change.Have = 1 // it was made before versions were kept, or by hand
	}
	paths := slices.Sorted(maps.Keys(want))
	for key := range have {
		if _, ok := want[key]; !ok {
			paths = append(paths, key)
		}
	}
	slices.Sort(paths)
	for _, key := range paths {
		h, inHave := have[key]
		w, inWant := want[key]
		switch {
		case !inHave:
			change.Lines = append(change.Lines, "+ "+key+": "+w)
		case !inWant:
			change.Lines = append(change.Lines, "- "+key+": "+h)
		case h != w:
			change.Lines = append(change.Lines, "~ "+key+": "+h+" → "+w)
		}
	}
	return change, nil
}

// leaves writes every scalar of v under its path.
func leaves(path string, v any, out map[string]string) {
	under := func(key string) string { return strings.TrimPrefix(path+"."+key, ".") }
	switch v := v.(type) {
	case nil:
	case map[string]any:
		if len(v) == 0 {
			out[path] = "{}"
		}
		for k, e := range v {
			leaves(under(k), e, out)
		}
	case []any:
		for i, e := range v {
			leaves(under(strconv.Itoa(i)), e, out)
		}
	default:
		out[path] = fmt.Sprint(v)
	}
}

// ApplyIndex installs what the plan found to differ. What is newer in the cluster is refused before anything is written, unless forced.
func (c *Cluster) ApplyIndex(ctx context.Context, p *IndexPlan, force bool) error {
	if newer := p.Newer(); len(newer) > 0 && !force {
		return fmt.Errorf("the cluster has a newer index design than this build (version %d): %s; use the newer build, or overwrite with --force", IndexVersion, strings.Join(newer, ", "))
	}
	for i := range p.Changes {
		ch := &p.Changes[i]
		if len(ch.Lines) == 0 {
			continue
		}
		if err := c.call(ctx, http.MethodPut, ch.path, string(ch.put), nil); err != nil {
			return fmt.Errorf("install the %s %s: %w", ch.Kind, ch.Name, err)
		}
	}
	for _, s := range p.Rollover {
		// A lazy rollover comes with the next write, so that streams nobody writes to get no empty index.
		err := c.call(ctx, http.MethodPost, "/"+s+"/_rollover?lazy=true", "", nil)
		if code(err) == http.StatusBadRequest {
			err = c.call(ctx, http.MethodPost, "/"+s+"/_rollover", "", nil)
		}
		if err != nil && code(err) != http.StatusNotFound {
			return fmt.Errorf("roll over %s: %w", s, err)
		}
	}
	return nil
}
