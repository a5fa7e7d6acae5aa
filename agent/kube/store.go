package kube

import (
	"reflect"
	"time"
)

// keepGone is how long a removed pod is still known: the logs of one that lived for an instant are found after it.
const keepGone = time.Minute

// Pod finds a pod by the uid that its folder has.
func (c *Client) Pod(uid string) *Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pods[uid]
}

// Changed tells that pods came or changed since it was last received from.
func (c *Client) Changed() <-chan struct{} { return c.changed }

func (c *Client) put(p *Pod) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.gone, p.UID)
	c.forget()
	old := c.pods[p.UID]
	if old == nil && len(c.pods) >= maxPods {
		return errTooMany
	}
	if !reflect.DeepEqual(old, p) { // most changes are of what is not read
		c.pods[p.UID] = p
		c.notify()
	}
	return nil
}

func (c *Client) remove(uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.pods[uid]; ok {
		c.gone[uid] = time.Now()
	}
	c.forget()
}

func (c *Client) replace(found map[string]*Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid, old := range c.pods {
		switch p := found[uid]; {
		case p == nil && len(found) < maxPods:
			if found[uid] = old; c.gone[uid].IsZero() {
				c.gone[uid] = time.Now()
			}
		case reflect.DeepEqual(old, p):
			found[uid] = old
			delete(c.gone, uid)
		default:
			delete(c.gone, uid)
		}
	}
	c.pods = found
	c.forget()
	c.notify()
}

// forget drops the pods that were removed a while ago.
func (c *Client) forget() {
	for uid, at := range c.gone {
		if time.Since(at) > keepGone {
			delete(c.gone, uid)
			delete(c.pods, uid)
		}
	}
}

func (c *Client) notify() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}
