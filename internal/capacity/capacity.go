// Package capacity computes what an installation needs, from what one machine was measured to do (docs/performance.md). docs/operate.md has the
// formulas in words.
package capacity

import (
	"errors"
	"fmt"
	"math"
)

// What was measured, in bytes of Docker json-file lines where nothing else is said, and what is held back of it.
const (
	agentCPU     = 7.0    // CPU seconds a gigabyte
	agentRSS     = 64.0   // MB
	kafkaShare   = 0.215  // bytes in Kafka, of a byte in a log
	indexerCPU   = 4.6e-6 // CPU seconds a record
	indexerRSS   = 100.0  // MB
	elasticCPU   = 75e-6  // CPU seconds a record, for a primary; a replica costs the same again
	elasticBytes = 193.0  // on disk a record of 200 bytes
	lineOverhead = 68.0   // of json-file around a line

	use             = 0.5       // how far a core, a broker's network and a disk are planned to be used at the peak
	brokerBytes     = 100e6     // a second and broker, in and to replicas; a modern broker with its own disks takes more
	brokerReplicas  = 4000      // partitions and their copies a broker
	partitionRate   = 10e6      // of log bytes a second: what one goroutine of any consumer surely keeps up with
	topicPartitions = 100_000   // a cluster's usual limit is some hundred thousand
	shardBytes      = 50e9      // Elastic's own advice is 10 to 50 GB a shard
	nodeDisk        = 8e12      // usable bytes of an Elasticsearch node or a DataNode
	nodeCores       = 16.0      // of an Elasticsearch node
	archiveFile     = 512 << 20 // after compaction
)

// Input is what one knows.
type Input struct {
	Nodes       int     // hosts with containers
	MBPerSecond float64 // of log bytes a node writes on average
	Peak        float64 // how many times the average the busiest minutes are
	LineBytes   float64 // of a log line, without what the engine puts around it
	Containers  int     // a node
	KafkaDays   float64 // retention
	SearchDays  float64
	ArchiveDays float64
	KafkaCopies int
	Replicas    int // of Elasticsearch's primaries
	HDFSCopies  int
	Archive     float64 // bytes in the archive of a byte in a log
}

// DefaultInput is of a node with some thirty containers that write 100 KB a second together.
func DefaultInput() Input {
	return Input{Nodes: 100, MBPerSecond: 0.1, Peak: 4, LineBytes: 200, Containers: 30, KafkaDays: 3, SearchDays: 14, ArchiveDays: 365, KafkaCopies: 3, Replicas: 1, HDFSCopies: 3, Archive: 0.1}
}

// Validate joins what is wrong.
func (in Input) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(in.Nodes < 1 || in.Nodes > 1_000_000, "nodes: %d is not within 1 and 1000000", in.Nodes)
	bad(!(in.MBPerSecond > 0 && in.MBPerSecond <= 1000), "mb-per-second: %v is not within 0 and 1000", in.MBPerSecond)
	bad(!(in.Peak >= 1 && in.Peak <= 1000), "peak: %v is not within 1 and 1000", in.Peak)
	bad(!(in.LineBytes >= 1 && in.LineBytes <= 1e6), "line-bytes: %v is not within 1 and 1000000", in.LineBytes)
	bad(in.Containers < 1 || in.Containers > 10_000, "containers: %d is not within 1 and 10000", in.Containers)
	for _, d := range []struct {
		name string
		days float64
	}{{"kafka-days", in.KafkaDays}, {"search-days", in.SearchDays}, {"archive-days", in.ArchiveDays}} {
		bad(!(d.days > 0 && d.days <= 36500), "%s: %v is not within 0 and 36500", d.name, d.days)
	}
	bad(in.KafkaCopies < 1 || in.KafkaCopies > 10, "kafka-copies: %d is not within 1 and 10", in.KafkaCopies)
	bad(in.Replicas < 0 || in.Replicas > 10, "replicas: %d is not within 0 and 10", in.Replicas)
	bad(in.HDFSCopies < 1 || in.HDFSCopies > 10, "hdfs-copies: %d is not within 1 and 10", in.HDFSCopies)
	bad(!(in.Archive > 0 && in.Archive <= 2), "archive-share: %v is not within 0 and 2", in.Archive)
	return errors.Join(errs...)
}

// Plan is what is needed. Rates are at the peak, bytes a day at the average.
type Plan struct {
	LogBytesPerSecond float64 `json:"log_bytes_per_second"`
	RecordsPerSecond  float64 `json:"records_per_second"`
	LogBytesPerDay    float64 `json:"log_bytes_per_day"`

	AgentCores float64 `json:"agent_cores"` // of one node at its peak
	AgentMB    float64 `json:"agent_mb"`

	KafkaBytesPerSecond float64 `json:"kafka_bytes_per_second"` // once, without copies
	Partitions          int     `json:"partitions"`             // of weir.logs
	EventPartitions     int     `json:"event_partitions"`       // of each of the other topics
	Brokers             int     `json:"brokers"`
	KafkaBytes          float64 `json:"kafka_bytes"` // on all disks, for the retention

	Indexers     int     `json:"indexers"`
	ElasticCores float64 `json:"elasticsearch_cores"`
	ElasticNodes int     `json:"elasticsearch_nodes"`
	ElasticBytes float64 `json:"elasticsearch_bytes"`
	ShardsPerDay int     `json:"primary_shards_per_day"`
	Shards       int     `json:"shards"`

	HDFSBytesPerDay float64 `json:"hdfs_bytes_per_day"` // with copies
	HDFSBytes       float64 `json:"hdfs_bytes"`
	DataNodes       int     `json:"data_nodes"`
	FilesPerDay     int     `json:"archive_files_per_day"` // once compacted

	Notes []string `json:"notes"`
}

// Compute makes the plan.
func Compute(in Input) (Plan, error) {
	if err := in.Validate(); err != nil {
		return Plan{}, err
	}
	average := float64(in.Nodes) * in.MBPerSecond * 1e6
	records := average / (in.LineBytes + lineOverhead)
	p := Plan{LogBytesPerSecond: average * in.Peak, RecordsPerSecond: records * in.Peak, LogBytesPerDay: average * 86400}
	p.AgentCores = in.MBPerSecond * in.Peak * agentCPU / 1000
	p.AgentMB = agentRSS + 0.01*float64(in.Containers)

	p.KafkaBytesPerSecond = p.LogBytesPerSecond * kafkaShare
	p.Partitions = multiple(max(6, p.LogBytesPerSecond/partitionRate), 6)
	p.EventPartitions = multiple(max(6, float64(in.Nodes)/1000), 6)
	replicas := float64(p.Partitions+4*p.EventPartitions) * float64(in.KafkaCopies)
	p.Brokers = max(in.KafkaCopies, up(p.KafkaBytesPerSecond*float64(in.KafkaCopies)/(brokerBytes*use)), up(replicas/brokerReplicas))
	p.KafkaBytes = average * kafkaShare * float64(in.KafkaCopies) * in.KafkaDays * 86400 / 0.7 // a disk that is full ends the broker

	copies := float64(1 + in.Replicas)
	p.Indexers = max(2, up(p.RecordsPerSecond*indexerCPU/use))
	p.ElasticCores = p.RecordsPerSecond * elasticCPU * copies / use
	perDay := records * 86400 * elasticBytes / 200 * in.LineBytes
	p.ElasticBytes = perDay * copies * in.SearchDays / 0.8 // Elasticsearch stops to allocate beyond 85 %
	p.ShardsPerDay = max(1, up(perDay/shardBytes))
	p.Shards = up(float64(p.ShardsPerDay) * copies * in.SearchDays)
	p.ElasticNodes = max(1+in.Replicas, up(p.ElasticCores/nodeCores), up(p.ElasticBytes/nodeDisk), up(float64(p.Shards)/1000))

	once := p.LogBytesPerDay * in.Archive
	p.HDFSBytesPerDay = once * float64(in.HDFSCopies)
	p.HDFSBytes = p.HDFSBytesPerDay * in.ArchiveDays
	p.DataNodes = max(in.HDFSCopies, up(p.HDFSBytes/nodeDisk/0.8))
	p.FilesPerDay = max(24, up(once/archiveFile))

	note := func(is bool, format string, args ...any) {
		if is {
			p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
		}
	}
	note(replicas > topicPartitions, "%.0f partitions with their copies are more than one Kafka cluster should hold: divide the nodes into cells (agent.cell), each with a Kafka of its own", replicas)
	note(p.Brokers > 60, "%d brokers are many for one cluster: divide the nodes into cells (agent.cell)", p.Brokers)
	note(p.ElasticNodes > 100, "%d Elasticsearch nodes are many for one cluster: index less of it (indexer.routing, quotas), keep it for fewer days, or divide it by cell and search across clusters", p.ElasticNodes)
	note(p.AgentCores > 1, "an agent reads in one goroutine: at %.1f cores at the peak it falls behind, and catches up later", p.AgentCores)
	note(true, "the number of partitions cannot be raised later without moving sources: choose it for the size you will have")
	return p, nil
}

func up(x float64) int { return int(math.Ceil(x - 1e-9)) }

// multiple rounds up to a multiple of n, which divides evenly among consumers.
func multiple(x float64, n int) int { return (up(x) + n - 1) / n * n }
