package parse

import "testing"

func TestPlain(t *testing.T) {
	check(t, []lineTest{
		{`2026-01-02 03:04:05,678 ERROR [main] c.b.Pay - failed`, "ERROR/17"},
		{`[WARN] disk is nearly full`, "WARN/13"},
		{`level: error, something`, "ERROR/17"},
		{`<error> something`, "ERROR/17"},
		{`2025/11/25 12:00:00 [error] 29#29: *1 open() "/x" failed`, "ERROR/17"},
		{`2025/11/25 12:00:00 [emerg] 1#1: bind() failed`, "FATAL/21"},
		{`2025-11-25T12:00:00Z level=info msg=x`, "INFO/9"},
		{`INFO:     Uvicorn running on http://0.0.0.0:8000`, "INFO/9"},
		{`WARNING:root:careful`, "WARN/13"},
		{`INFO[0000] starting`, "INFO/9"},
		{`12:00:00.000 [main] DEBUG com.x.Y - z`, "DEBUG/5"},
		{`12:00:00 | TRACE | x`, "TRACE/1"},
		{"\x1b[34mINFO\x1b[0m[0000] coloured", "INFO/9"},
		{"\x1b[1;31mERROR\x1b[0m coloured", "ERROR/17"},
		{"  \tFATAL out of memory", "FATAL/21"},
		{"\xEF\xBB\xBFERROR after a mark", "ERROR/17"},
		{`{'level': 'error'}`, ""},
		{`ERROR`, "ERROR/17"},
		{`no error`, ""},
		{`Error: something`, ""},
		{`error: something`, ""},
		{`the ERRORS were many`, ""},
		{`MYERROR x`, ""},
		{`ERROR-17 is a code`, ""},
		{`ERROR/foo is a path`, ""},
		{`status=ERROR x`, ""},
		{`see the level of information`, ""},
		{`levels: error`, ""},
		{`level error`, ""},
		{`level=`, ""},
		{`0123456789012345678901234567890123456789012345678901234567890123 ERROR`, ""},
		{`01234567890123456789012345678901234567890123456789012345678 ERROR far`, "ERROR/17"},
		{`01234567890123456789012345678901234567890123456789012345678 ERRORS far`, ""},
		{`AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA`, ""},
		{"\x00\xff\xfe", ""},
		{`m`, ""}, {`[`, ""}, {`<`, ""}, {`{`, ""}, {`"`, ""}, {`-`, ""},
	})
}

func TestTraceparent(t *testing.T) {
	check(t, []lineTest{
		{`GET / traceparent=00-TRACE32-SPAN16-01`, "trace=TRACE32 span=SPAN16 flags=1"},
		{`x TraceParent: "00-TRACE32-SPAN16-00" y`, "trace=TRACE32 span=SPAN16"},
		{`{"headers":{"traceparent":"00-TRACE32-SPAN16-01"},"level":"warn"}`, "json WARN/13 trace=TRACE32 span=SPAN16 flags=1"},
		{`{"msg":"{\"traceparent\":\"00-TRACE32-SPAN16-01\"}"}`, "json trace=TRACE32 span=SPAN16 flags=1"},
		{`level=info msg=x traceparent=00-TRACE32-SPAN16-01`, "logfmt INFO/9 trace=TRACE32 span=SPAN16 flags=1"},
		{`traceparent 00-TRACE32-0000000000000000-01`, ""},
		{`traceparent 00-00000000000000000000000000000000-SPAN16-01`, ""},
		{`traceparent 01-TRACE32-SPAN16-01`, ""},
		{`traceparent 00-TRACE32-SPAN16-01-more`, ""},
		{`traceparent 00-TRACE32-SPAN16-0`, ""},
		{`traceparent 00-4BF92F3577B34DA6A3CE929D0E0E4736-SPAN16-01`, ""},
		{`traceparents are 00-TRACE32-SPAN16-01`, ""},
		{`00-TRACE32-SPAN16-01 traceparent`, ""},
		{`traceparent 00-TRACE32-SPAN16-zz`, ""},
	})
}

func TestLogfmt(t *testing.T) {
	check(t, []lineTest{
		{`level=info msg="started" port=80`, "logfmt INFO/9"},
		{`ts=2025-11-25T12:00:00Z caller=main.go:3 lvl=dbug msg="x \"level=error\" y"`, "logfmt"},
		{`a=1 severity=WARNING`, "logfmt WARN/13"},
		{`time=x level="error" traceID=1 trace_id=TRACE32 span_id=SPAN16 trace_flags=01 b=c`, "logfmt ERROR/17 trace=TRACE32 span=SPAN16 flags=1"},
		{`msg=x done a=b`, "logfmt"},
		{`level=error level=info a=b`, "logfmt ERROR/17"},
		{`level=high severity=error`, "logfmt ERROR/17"},
		{`level=warn msg="cut off`, "logfmt WARN/13"},
		{`msg="cut off`, ""},
		{`level=warn`, "WARN/13"},
		{`a=1 b=2`, ""},
		{`x=1 is the level=error of what was set there and not more`, "ERROR/17"},
		{`retries=3 so we wait until timeout=5s passes`, ""},
		{`a= level=`, "logfmt"},
		{`=a level=info`, "INFO/9"},
		{`http://x/?a=b level=info`, "INFO/9"},
	})
}

func TestKlog(t *testing.T) {
	check(t, []lineTest{
		{`I1125 12:59:38.001000       1 file.go:77] hello`, "klog INFO/9 code.file.path=file.go code.line.number=77"},
		{`W1125 12:59:38.001000 1234567 pkg/a.go:7] x`, "klog WARN/13 code.file.path=pkg/a.go code.line.number=7"},
		{`E1125 12:59:38.001000       1 file.go:77]`, "klog ERROR/17 code.file.path=file.go code.line.number=77"},
		{`F20251125 12:59:38.001000 1 file.cc:1] x`, "klog FATAL/21 code.file.path=file.cc code.line.number=1"},
		{`D1125 12:59:38.001000       1 file.go:77] x`, ""},
		{`I1125 12:59:38.001       1 file.go:77] x`, ""},
		{`I1125 12:59:38.001000       x file.go:77] x`, ""},
		{`I1125 12:59:38.001000       1 file.go] x`, ""},
		{`I1125 12:59:38.001000       1 file.go:] x`, ""},
		{`I1125 12:59:38.001000       1 file.go:77 x`, ""},
		{`I1125 12:59:38.001000 `, ""},
		{`I1125`, ""},
		{`In 1125 a thing`, ""},
	})
}

func TestAccess(t *testing.T) {
	check(t, []lineTest{
		{`127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326`,
			"access INFO/9 http.request.method=GET http.response.status_code=200 url.path=/apache_pb.gif client.address=127.0.0.1"},
		{`2001:db8::1 - - [10/Oct/2000:13:55:36 +0000] "GET /a?b=c HTTP/1.1" 404 0 "-" "curl"`,
			"access WARN/13 http.request.method=GET http.response.status_code=404 url.path=/a client.address=2001:db8::1"},
		{`::1 - - [10/Oct/2000:13:55:36 +0000] "HEAD / HTTP/1.1" 500 -`,
			"access ERROR/17 http.request.method=HEAD http.response.status_code=500 url.path=/ client.address=::1"},
		{`localhost - a b [10/Oct/2000:13:55:36 +0000] "-" 408 -`, "access WARN/13 http.response.status_code=408 client.address=localhost"},
		{`- - - [10/Oct/2000:13:55:36 +0000] "\x16\x03\"" 400 0`, "access WARN/13 http.response.status_code=400"},
		{`fe80::1 - - [10/Oct/2000:13:55:36 +0000] "CONNECT x:443 HTTP/1.1" 302 0`,
			"access INFO/9 http.request.method=CONNECT http.response.status_code=302 client.address=fe80::1"},
		{`127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 20x 2326`, ""},
		{`127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0 200 2326`, ""},
		{`127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0"`, ""},
		{`127.0.0.1 - - 10/Oct/2000 "GET / HTTP/1.0" 200 1`, ""},
		{`127.0.0.1 x - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 1`, ""},
		{`127.0.0.1 - `, ""},
		{`[2024-06-02T13:24:57.930Z] "GET /x HTTP/2" 0 DC http2.remote_reset - "-" 0 0 0 - "192.168.0.24" "Mozilla" "9f69" "auth" "10.0.0.159:8080" outbound|80||x - - - - default`,
			"access INFO/9 http.request.method=GET url.path=/x client.address=192.168.0.24"},
		{`[2016-04-15T20:17:00.310Z] "POST /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28,10.1.1.1" "nsq2http" "cc21" "locations" "tcp://10.0.2.1:80"`,
			"access INFO/9 http.request.method=POST http.response.status_code=204 url.path=/api/v1/locations client.address=10.0.35.28"},
		{`[2016-04-15T20:17:00.310Z] "GET / HTTP/1.1" 503 UF 0 91 3 - "-" "curl" "id" "10.0.0.1" "-"`,
			"access ERROR/17 http.request.method=GET http.response.status_code=503 url.path=/"},
		{`[2016-04-15T20:17:00.310Z] "GET / HTTP/1.1`, ""},
		{`[2016-04-15T20:17:00.310Z] ERROR it failed`, "ERROR/17"},
		{`2020/02/13 16:58:38.339 1.2ms 0s 0 0 bolt 504 3s true 504 - - [::1]:5001 -`,
			"access ERROR/17 http.response.status_code=504 client.address=::1"},
		{`2020/02/13 16:58:38.339 1.2ms 0s 0 0 bolt 504 3s true 200 - - 1.1.1.1:5001 -`, ""},
		{`2020/02/13 16:58:38.339 1.2ms 0s 0 0 bolt 504 3s true 504 - -`, ""},
		{`2020/02/13 16:58:38.339 [ERROR] 3 connections lost`, "ERROR/17"},
		{`2020/02/13 16:58:38.339 `, ""},
	})
}

func TestSOFATracer(t *testing.T) {
	const id = "1e27326d1526807000498100185597"
	check(t, []lineTest{
		{`{"timestamp":"2018-05-20 17:03:20.708","tracerId":"` + id + `","spanId":"0","span.kind":"client","local.app":"A","protocol":"bolt","result.code":"03"}`,
			"sofatracer ERROR/17 sofa.trace_id=" + id + " sofa.span_id=0 sofa.result_code=03"},
		{`{"time":"2018-06-03 16:44:05.829","local.app":"A","traceId":"` + id + `","spanId":"0","method":"GET","result.code":"404"}`,
			"sofatracer WARN/13 sofa.trace_id=" + id + " sofa.span_id=0 sofa.result_code=404"},
		{`{"time":"x","local.app":"A","traceId":"TRACE32","spanId":"0.1.2","result.code":"success"}`,
			"sofatracer INFO/9 trace=TRACE32 sofa.span_id=0.1.2 sofa.result_code=success"},
		{`{"time":"x","local.app":"A","traceId":"` + id + `","level":"debug","resultCode":"01"}`,
			"sofatracer DEBUG/5 sofa.trace_id=" + id + " sofa.result_code=01"},
		{`{"msg":"x","traceId":"` + id + `","spanId":"0.1","level":"info"}`, "json INFO/9 sofa.trace_id=" + id + " sofa.span_id=0.1"},
		{`{"msg":"x","traceId":"some-other-id","spanId":"0.1","resultCode":"01"}`, "json"},
		{`{"local.app":"A","resultCode":"01"}`, "json"},
		{`{"local.app":"A","traceId":"` + id + `","resultCode":"01"`, ""},
		{`2018-06-03 16:44:05.829,A,` + id + `,0,http://localhost/greeting,GET,500,0B,50B,1ms,http-nio-1,`,
			"sofatracer ERROR/17 sofa.trace_id=" + id + " sofa.span_id=0 sofa.result_code=500"},
		{`2018-06-03 16:44:05.829,` + id + `,0.2,client,A,bolt,x,y,main,sync,DIRECT,1.1.1.1,,,01,3`,
			"sofatracer ERROR/17 sofa.trace_id=" + id + " sofa.span_id=0.2 sofa.result_code=01"},
		{`2018-06-03 16:44:05.829,A,TRACE32,SPAN16,x,success`, "sofatracer INFO/9 trace=TRACE32 span=SPAN16 sofa.result_code=success"},
		{`2018-06-03 16:44:05.829,A,` + id + `,0`, "sofatracer sofa.trace_id=" + id + " sofa.span_id=0"},
		{`2018-06-03 16:44:05.829,A,` + id + `,x,y`, ""},
		{`2018-06-03 16:44:05.829,A,TRACE32,x,y`, ""},
		{`2018-06-03 16:44:05.829,A,b,c,d`, ""},
		{`2018-06-03 16:44:05.829,ERROR,it failed`, ""},
	})
}

func TestOceanBase(t *testing.T) {
	check(t, []lineTest{
		{`[2025-11-25 12:00:00.123456] INFO  [SERVER] func (file.cpp:123) [77][][T1][Y-0A1] msg`,
			"oceanbase INFO/9 oceanbase.module=SERVER oceanbase.trace_id=Y-0A1 thread.id=77"},
		{`[2022-07-01 10:49:10.272860] INFO  [SQL.EXE] f (x.cpp:161) [119171][T1004_Occam][T1][Y0-0000000000000000-0-0] x`,
			"oceanbase INFO/9 oceanbase.module=SQL.EXE thread.id=119171"},
		{`[2023-05-11 14:19:09.703272] WARN  [SERVER] ob_server.cpp:533 [95303][0][YB42-0001-0-0] [lt=9] [dc=0] x`,
			"oceanbase WARN/13 oceanbase.module=SERVER oceanbase.trace_id=YB42-0001-0-0 thread.id=95303"},
		{`[2023-05-11 14:19:09.703272] EDIAG [RPC] operator[] (a.h:3) [9][t][T1][YB42-0001-0-0] x`,
			"oceanbase ERROR/17 oceanbase.module=RPC oceanbase.trace_id=YB42-0001-0-0 thread.id=9"},
		{`[2023-05-11 14:19:09.703272] ERROR issue_dba_error (ob_log.cpp:1875) [9][t][T1][YB42-0001-0-0] x`,
			"oceanbase ERROR/17 oceanbase.trace_id=YB42-0001-0-0 thread.id=9"},
		{`[2023-05-11 14:19:09.703272] TRACE [PROXY.SM] f (a.cpp:3) [9][Y0-00007F285BADB4E0] x`,
			"oceanbase TRACE/1 oceanbase.module=PROXY.SM oceanbase.trace_id=Y0-00007F285BADB4E0 thread.id=9"},
		{`[2023-05-11 14:19:09.703272] INFO  [main] started`, "INFO/9"},
		{`[2023-05-11 14:19:09.703272] INFO  [SERVER] f (a.cpp:3) [9][a][b][c][Y1-2] x`, "INFO/9"},
		{`[2023-05-11 14:19:09.703272] NEWS  [SERVER] f (a.cpp:3) [9][a][b][Y1-2] x`, ""},
		{`[2023-05-11 14:19:09.703272] WDIAG`, ""},
		{`[2023-05-11 14:19:09] ERROR [SERVER] f (a.cpp:3) [9][a][b][Y1-2]`, "ERROR/17"},
	})
}
