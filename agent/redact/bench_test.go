package redact

import "testing"

const (
	plainLine = "2026-10-01 12:00:00.123 INFO  [http-nio-8080-exec-7] c.b.pay.SettlementService - settled the batch of the " +
		"morning with the clearing house in 34 ms, 120 entries written, none rejected, next run in an hour"
	jsonLine = `{"ts":1760000000123,"level":"info","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","order":20261001000123456789,` +
		`"user_id":10023456,"cost_ms":34,"path":"/api/v1/transfer","status":200,"msg":"transfer done"}`
	cardLine = `{"ts":1760000000123,"level":"info","msg":"payment with card 4111 1111 1111 1111 accepted","order":20261001,` +
		`"user_id":10023456,"cost_ms":34,"path":"/api/v1/transfer","status":200,"host":"pay-7"}`
)

func benchmark(b *testing.B, cfg Config, line string) {
	r := newRedactor(b, cfg)
	body, out, counts := []byte(line), make([]byte, 0, 1024), make([]int, len(r.Kinds()))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r.Redact(out, body, counts)
	}
}

func BenchmarkPlain(b *testing.B)    { benchmark(b, DefaultConfig(), plainLine) }
func BenchmarkJSON(b *testing.B)     { benchmark(b, DefaultConfig(), jsonLine) }
func BenchmarkWithCard(b *testing.B) { benchmark(b, DefaultConfig(), cardLine) }

func BenchmarkPlainAllKinds(b *testing.B) { benchmark(b, allKinds(), plainLine) }
func BenchmarkJSONAllKinds(b *testing.B)  { benchmark(b, allKinds(), jsonLine) }
