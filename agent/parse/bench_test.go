package parse

import (
	"strings"
	"testing"
)

const trace32, span16 = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

// samples are lines of about 200 bytes, one for each format.
var samples = []struct{ name, line string }{
	{"plain", `2025-11-25 12:59:38.001  INFO 1 --- [nio-8080-exec-3] c.b.pay.TransferController : transfer of account ending 4411 accepted, 3 postings written, waiting for the settlement batch of 18:00 to close the day`},
	{"prose", `the settlement batch of eighteen hundred has been closed without an error after three retries, and all of the postings in it have been written to the ledger of the day which will be archived tonight.`},
	{"json", `{"level":"info","ts":"2025-11-25T12:59:38.001Z","logger":"pay","msg":"transfer accepted","account":"6222-xx-4411","amount":1250.25,"trace_id":"` + trace32 + `","span_id":"` + span16 + `"}`},
	{"jsonlast", `{"time":"2025-11-25T12:59:38.001Z","service":"pay","msg":"transfer accepted by the ledger","account":"6222-xx-4411","amount":1250.25,"nested":{"a":[1,2,3]},"host":"node-17","pod":"pay-6d4f","level":"warn"}`},
	{"logfmt", `time=2025-11-25T12:59:38.001Z level=info msg="transfer accepted by ledger" account=6222-xx-4411 amount=1250.25 posting=3 trace_id=` + trace32 + ` span_id=` + span16},
	{"klog", `I1125 12:59:38.001000       1 reconciler.go:77] "Reconciled deployment" namespace="pay" name="transfer" generation=14 replicas=3 ready=3 duration="12.5ms" with nothing left to do until the next change`},
	{"nginx", `10.1.2.3 - alice [25/Nov/2025:12:59:38 +0800] "POST /api/v1/transfers?debug=1 HTTP/1.1" 201 512 "https://bank.example/app" "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/131.0"`},
	{"envoy", `[2025-11-25T12:59:38.001Z] "GET /api/v1/accounts?id=7 HTTP/2" 503 UF 154 0 226 100 "10.0.35.28" "okhttp/4.12" "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2" "accounts" "10.0.2.1:8080"`},
	{"mosn", `2025/11/25 12:59:38.001 1.2ms 15.2ms 1024 210 Http1 200 15.4ms false 200 10.0.0.5:5000 10.0.0.5:2045 10.1.2.3:52100 10.0.0.9:8080`},
	{"sofajson", `{"time":"2025-11-25 12:59:38.001","local.app":"pay","traceId":"0a0fe8b3154034912878910015081","spanId":"0.1","request.url":"http://ledger:8080/rest","method":"GET","resultCode":"00","time.cost.milliseconds":18}`},
	{"sofacomma", `2025-11-25 12:59:38.001,pay,0a0fe8b3154034912878910015081,0.1,com.bank.LedgerService:1.0,post,BOLT,sync,10.15.232.93:12200,ledger,,,,00,330B,170B,12ms,3ms,0ms,SofaBizProcessor-4-thread-3,DIRECT`},
	{"oceanbase", `[2025-11-25 12:59:38.001234] WDIAG [SQL.EXE] implicit_end_trans (ob_sql_trans_control.cpp:161) [119171][T1004_Occam][T1][YB42AC1E87E6-0005F1-0-0] [lt=12][errcode=-4012] implicit end trans(is_rollback=false)`},
	{"traceparent", `calling the ledger with headers accept: application/json, traceparent: 00-` + trace32 + `-` + span16 + `-01 and waiting at most two seconds for the answer before the posting is given up`},
}

func BenchmarkLine(b *testing.B) {
	for _, s := range samples {
		b.Run(s.name, func(b *testing.B) { benchmark(b, s.line) })
	}
	b.Run("json64KiB", func(b *testing.B) {
		benchmark(b, `{"msg":"`+strings.Repeat(`a\nb `, 13<<10)+`","level":"info"}`)
	})
	b.Run("prose64KiB", func(b *testing.B) { benchmark(b, strings.Repeat("dead beef, ", 6<<10)) })
}

func benchmark(b *testing.B, line string) {
	body := []byte(line)
	var f Fields
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		Line(body, &f)
	}
}
