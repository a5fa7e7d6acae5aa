package capacity

import (
	"math"
	"strings"
	"testing"
)

// TestPlan works one case by hand, and looks at how the plan grows.
func TestPlan(t *testing.T) {
	in := DefaultInput() // 100 nodes of 0.1 MB/s: 10 MB/s, 40 at the peak; 268 bytes a record
	p, err := Compute(in)
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > want/100 {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	near("records a second", p.RecordsPerSecond, 149_254)
	near("logs a day", p.LogBytesPerDay, 864e9)
	near("Kafka's disks", p.KafkaBytes, 10e6*0.215*3*3*86400/0.7)
	near("Elasticsearch's cores", p.ElasticCores, 149_254*75e-6*2/0.5)
	near("HDFS a day", p.HDFSBytesPerDay, 864e9*0.1*3)
	if p.Partitions != 6 || p.Brokers != 3 || p.ElasticNodes != 3 || p.DataNodes != 15 || len(p.Notes) != 1 {
		t.Errorf("%+v", p)
	}
	last := p
	for _, nodes := range []int{1000, 10_000, 100_000} {
		in.Nodes = nodes
		p, err := Compute(in)
		if err != nil {
			t.Fatal(err)
		}
		if p.Partitions <= last.Partitions || p.Brokers < last.Brokers || p.ElasticNodes <= last.ElasticNodes || p.HDFSBytesPerDay <= last.HDFSBytesPerDay || p.AgentCores != last.AgentCores || p.Partitions%6 != 0 {
			t.Errorf("%d nodes: %+v", nodes, p)
		}
		last = p
	}
	if notes := strings.Join(last.Notes, "\n"); !strings.Contains(notes, "agent.cell") {
		t.Errorf("100,000 nodes: %s", notes)
	}
}

func TestBadInput(t *testing.T) {
	for want, change := range map[string]func(*Input){
		"nodes":         func(in *Input) { in.Nodes = 0 },
		"mb-per-second": func(in *Input) { in.MBPerSecond = math.NaN() },
		"peak":          func(in *Input) { in.Peak = 0.5 },
		"archive-days":  func(in *Input) { in.ArchiveDays = math.Inf(1) },
		"replicas":      func(in *Input) { in.Replicas = -1 },
	} {
		in := DefaultInput()
		change(&in)
		if _, err := Compute(in); err == nil || !strings.HasPrefix(err.Error(), want+": ") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
