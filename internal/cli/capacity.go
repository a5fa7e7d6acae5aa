package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"weir/internal/capacity"
)

type capacityCmd struct {
	Nodes        int     `help:"Hosts with containers." default:"100"`
	MBPerSecond  float64 `name:"mb-per-second" help:"Log bytes a node writes on average, in MB a second." default:"0.1"`
	Peak         float64 `help:"How many times the average the busiest minutes are." default:"4"`
	LineBytes    float64 `help:"Bytes of a log line." default:"200"`
	Containers   int     `help:"Containers on a node." default:"30"`
	KafkaDays    float64 `help:"Days that Kafka keeps." default:"3"`
	SearchDays   float64 `help:"Days that Elasticsearch keeps." default:"14"`
	ArchiveDays  float64 `help:"Days that HDFS keeps." default:"365"`
	KafkaCopies  int     `help:"Replication factor of the topics." default:"3"`
	Replicas     int     `help:"Replicas of Elasticsearch's primaries." default:"1"`
	HDFSCopies   int     `name:"hdfs-copies" help:"HDFS's replication." default:"3"`
	ArchiveShare float64 `help:"Bytes in the archive of a byte in a log." default:"0.1"`
	JSON         bool    `help:"Print JSON."`
}

func (c capacityCmd) Run(g *globals) error {
	p, err := capacity.Compute(capacity.Input{Nodes: c.Nodes, MBPerSecond: c.MBPerSecond, Peak: c.Peak, LineBytes: c.LineBytes, Containers: c.Containers, KafkaDays: c.KafkaDays, SearchDays: c.SearchDays,
		ArchiveDays: c.ArchiveDays, KafkaCopies: c.KafkaCopies, Replicas: c.Replicas, HDFSCopies: c.HDFSCopies, Archive: c.ArchiveShare})
	if err != nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(g.out)
		e.SetIndent("", "  ")
		return e.Encode(p)
	}
	return printPlan(g.out, p)
}

func printPlan(out io.Writer, p capacity.Plan) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"logs at the peak", fmt.Sprintf("%s/s, %.0f records/s", size(p.LogBytesPerSecond), p.RecordsPerSecond)},
		{"logs a day", size(p.LogBytesPerDay)},
		{"an agent", fmt.Sprintf("%.3f cores at the peak, %.0f MB", p.AgentCores, p.AgentMB)},
		{"weir.logs", fmt.Sprintf("%d partitions; the other topics %d each", p.Partitions, p.EventPartitions)},
		{"Kafka", fmt.Sprintf("%d brokers, %s/s in at the peak, %s of disk in all", p.Brokers, size(p.KafkaBytesPerSecond), size(p.KafkaBytes))},
		{"indexers", fmt.Sprint(p.Indexers)},
		{"Elasticsearch", fmt.Sprintf("%d nodes, %.0f cores, %s of disk in all; %d primary shards a day, %d shards", p.ElasticNodes, p.ElasticCores, size(p.ElasticBytes), p.ShardsPerDay, p.Shards)},
		{"HDFS", fmt.Sprintf("%s a day with its copies, %s in all on %d data nodes; %d files a day", size(p.HDFSBytesPerDay), size(p.HDFSBytes), p.DataNodes, p.FilesPerDay)},
	} {
		fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range p.Notes {
		if _, err := fmt.Fprintln(out, "note:", n); err != nil {
			return err
		}
	}
	return nil
}

// size is a number of bytes in the unit that fits.
func size(b float64) string {
	for _, unit := range []string{"B", "KB", "MB", "GB", "TB"} {
		if b < 1000 {
			return fmt.Sprintf("%.3g %s", b, unit)
		}
		b /= 1000
	}
	return fmt.Sprintf("%.3g PB", b)
}
