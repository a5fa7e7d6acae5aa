//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"weir/ingest"
	"weir/schema"
)

// tally is what one place holds: for each container the numbers, and how often records came more than once.
type tally struct {
	numbers  map[string]map[int]bool
	repeated int
}

func newTally() *tally { return &tally{numbers: map[string]map[int]bool{}} }

func (t *tally) add(container, body string) {
	var n int
	if _, err := fmt.Sscanf(body, "n=%d ", &n); err != nil {
		return
	}
	if t.numbers[container] == nil {
		t.numbers[container] = map[int]bool{}
	}
	if t.numbers[container][n] {
		t.repeated++
	}
	t.numbers[container][n] = true
}

func (t *tally) unique() (n int) {
	for _, c := range t.numbers {
		n += len(c)
	}
	return n
}

// topic is what a topic holds of this run's containers.
type topic struct {
	tally
	exits     map[string]int64 // die events: exit code by container
	losses    int
	lostBy    map[string]int             // loss records by container
	lostBytes map[string]int64           // that they tell of
	events    map[string][]string        // names of the other events, in order, by container; those of none by ""
	apps      map[string]map[string]bool // by container: the apps that its lines bear
	byID      map[string]map[int]bool    // numbers by container id
	byRun     map[string]map[string]int  // records by container id and run; repeats count
	closed    int
	broken    int // bodies that are not what was written
}

// readTopic reads a whole topic from its start.
func readTopic(t *testing.T, k *ingest.Kafka, name, prefix string) *topic {
	t.Helper()
	got := &topic{tally: *newTally(), exits: map[string]int64{}, lostBy: map[string]int{}, lostBytes: map[string]int64{}, events: map[string][]string{}, apps: map[string]map[string]bool{}, byID: map[string]map[int]bool{}, byRun: map[string]map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	idle := time.AfterFunc(5*time.Second, cancel)
	err := k.Tail(ctx, []string{name}, true, func(b *schema.Batch) error {
		idle.Reset(3 * time.Second)
		a, _ := b.ResourceAttr(schema.AttrContainerName)
		container := strings.Clone(a.Str)
		node, _ := b.ResourceAttr(schema.AttrHostName)
		if !strings.HasPrefix(container, prefix) && (container != "" || node.Str != prefix) {
			return nil
		}
		app, _ := b.ResourceAttr(schema.AttrApp)
		id, _ := b.ResourceAttr(schema.AttrContainerID)
		for i := range b.Records {
			r := &b.Records[i]
			switch r.EventName {
			case "":
				got.add(container, r.Body)
				got.addByID(id.Str, r.Body)
				if got.apps[container] == nil {
					got.apps[container] = map[string]bool{}
				}
				got.apps[container][strings.Clone(app.Str)] = true
				if !whole(r.Body) {
					got.broken++
				}
			case schema.EventLoss:
				got.losses++
				got.lostBy[container]++
				bytes, _ := r.Attr(schema.AttrLossBytes)
				got.lostBytes[container] += bytes.Num
			case schema.EventSourceClosed:
				got.closed++
			case "docker.container.die":
				code, _ := r.Attr(schema.AttrExitCode)
				got.exits[container] = code.Num
			default:
				got.events[container] = append(got.events[container], strings.Clone(r.EventName))
			}
		}
		return nil
	}, func(err error) { t.Error(err) })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return got
}

func (t *topic) addByID(id, body string) {
	var n int
	var run string
	if _, err := fmt.Sscanf(body, "n=%d run=%s ", &n, &run); err != nil {
		return
	}
	if t.byID[id] == nil {
		id = strings.Clone(id)
		t.byID[id], t.byRun[id] = map[int]bool{}, map[string]int{}
	}
	t.byID[id][n] = true
	t.byRun[id][strings.Clone(run)]++
}

// runs counts a container's records.
func (t *topic) runs(id string) int { return sum(t.byRun[id]) }

// whole says whether a body is a line as the writer wrote it.
func whole(body string) bool {
	var n int
	if _, err := fmt.Sscanf(body, "n=%d ", &n); err != nil {
		return false
	}
	_, rest, _ := strings.Cut(body, " ")
	_, padding, _ := strings.Cut(rest, " ")
	if n%500 == 499 {
		return padding == strings.Repeat("0123456789", 4100)
	}
	return padding == strings.Repeat("abcdefghij", 18)
}

// caughtUp waits until the groups have committed all that the topics hold.
func caughtUp(t *testing.T, brokers []string, groups map[string][]string, limit time.Duration) {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 10 * time.Second}
	deadline := time.Now().Add(limit)
	for {
		behind := ""
		for group, topics := range groups {
			for _, name := range topics {
				offsets, err := client.ConsumerOffsets(t.Context(), kafka.TopicAndGroup{Topic: name, GroupId: group})
				if err != nil {
					behind += fmt.Sprintf("%s on %s: %v; ", group, name, err)
					continue
				}
				var ask []kafka.OffsetRequest
				for p := range offsets {
					ask = append(ask, kafka.LastOffsetOf(p))
				}
				ends, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{name: ask}})
				if err != nil {
					behind += err.Error()
					continue
				}
				for _, end := range ends.Topics[name] {
					if end.LastOffset > max(0, offsets[end.Partition]) {
						behind += fmt.Sprintf("%s on %s/%d is at %d of %d; ", group, name, end.Partition, offsets[end.Partition], end.LastOffset)
					}
				}
			}
		}
		if behind == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("not caught up after %s: %s", limit, behind)
			return
		}
		time.Sleep(time.Second)
	}
}

// readElasticsearch scrolls through a data stream; the engine may have other containers too.
func readElasticsearch(t *testing.T, url, index, prefix string) *tally {
	t.Helper()
	got := newTally()
	post := func(path string, body any, into any) {
		t.Helper()
		var payload []byte
		if body != nil {
			payload, _ = json.Marshal(body)
		}
		res, err := http.Post(url+path, "application/json", bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d, %v: %.300s", path, res.StatusCode, err, answer)
		}
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatal(err)
		}
	}
	var ignored map[string]any
	post("/"+index+"/_refresh", nil, &ignored)
	var page struct {
		Scroll string `json:"_scroll_id"`
		Hits   struct {
			Hits []struct {
				Source struct {
					Message   string `json:"message"`
					Container struct {
						Name string `json:"name"`
					} `json:"container"`
				} `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	post("/"+index+"/_search?scroll=1m", map[string]any{"size": 5000, "_source": []string{"message", "container.name"}, "sort": []string{"_doc"}}, &page)
	for len(page.Hits.Hits) > 0 {
		for _, h := range page.Hits.Hits {
			if strings.HasPrefix(h.Source.Container.Name, prefix) {
				got.add(h.Source.Container.Name, h.Source.Message)
			}
		}
		scroll := page.Scroll
		page.Hits.Hits = nil
		post("/_search/scroll", map[string]any{"scroll": "1m", "scroll_id": scroll}, &page)
	}
	return got
}

type sparkCounts struct {
	Rows       int `json:"rows"`
	IDs        int `json:"ids"`
	Repeated   int `json:"repeated"`
	Containers map[string]struct {
		Rows     int `json:"rows"`
		Distinct int `json:"distinct"`
		Max      int `json:"max"`
	} `json:"containers"`
}

// readArchive counts with the Spark job that users have.
func readArchive(t *testing.T, submit, repository, root, prefix string) sparkCounts {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, submit, filepath.Join(repository, "deployments/spark/counts.py"), root, "--prefix", prefix, "--numbers")
	out, err := cmd.CombinedOutput()
	var counts sparkCounts
	for line := range strings.Lines(string(out)) {
		if j, ok := strings.CutPrefix(line, "COUNTS "); ok && json.Unmarshal([]byte(j), &counts) == nil {
			return counts
		}
	}
	if len(out) > 4000 {
		out = out[len(out)-4000:]
	}
	t.Fatalf("the Spark job gave no counts (%v):\n%s", err, out)
	return counts
}
