package agent

// recently remembers the last keys that were added, at most keep of them.
type recently[K comparable] struct {
	keep  int
	known map[K]bool
	order []K // oldest first
}

func newRecently[K comparable](keep int, keys ...K) recently[K] {
	r := recently[K]{keep: keep, known: map[K]bool{}}
	for _, key := range keys {
		r.add(key)
	}
	return r
}

// add reports whether the key is a new one.
func (r *recently[K]) add(key K) bool {
	if r.known[key] {
		return false
	}
	r.known[key] = true
	r.order = append(r.order, key)
	if len(r.order) > r.keep {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	return true
}

func (r *recently[K]) has(key K) bool { return r.known[key] }

// last returns the newest key; ok is false when there is none.
func (r *recently[K]) last() (key K, ok bool) {
	if len(r.order) == 0 {
		return key, false
	}
	return r.order[len(r.order)-1], true
}
