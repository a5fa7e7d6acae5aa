package multiline

// traces are whole ones, each of which is one record.
var traces = map[string]string{
	"java": `java.lang.IllegalStateException: account 7 is locked

  Hint: unlock it first
	at com.bank.ledger.Account.debit(Account.java:88)
	at java.base/java.lang.Thread.run(Thread.java:1583)
	at com.bank.App$$Lambda/0x00007f1c.run(Unknown Source) ~[app.jar:1.2]
	Suppressed: java.io.IOException: close failed
		at com.bank.ledger.Tx.close(Tx.java:12)
		... 2 more
Caused by: org.postgresql.util.PSQLException: ERROR: relation "acc" does not exist
  Position: 15
	at org.postgresql.core.v3.QueryExecutorImpl.receiveErrorResponse(QueryExecutorImpl.java:2713)
	... 5 common frames omitted
Caused by: java.net.SocketTimeoutException
	at java.base/sun.nio.ch.NioSocketImpl.timedRead(NioSocketImpl.java:278)
	... 12 more`,
	"java thread": `Exception in thread "main" java.lang.NullPointerException: Cannot invoke "String.length()" because "s" is null
	at Main.main(Main.java:5)`,
	"java logged": `2026-11-25 10:00:00,123 [http-nio-8080-exec-1] ERROR c.b.PayController - payment failed
java.lang.RuntimeException: boom
	at com.bank.PayController.pay(PayController.java:31)
	... 40 more`,
	"java any text": `payment failed: com.bank.PayFault: boom
	at com.bank.PayController.pay(PayController.java:31)`,
	"kotlin": `kotlin.UninitializedPropertyAccessException: lateinit property repo has not been initialized
	at com.bank.Svc.load(Svc.kt:9)
	at _COROUTINE._BOUNDARY._(CoroutineDebugging.kt:42)
	at com.bank.MainKt$main$1.invokeSuspend(Main.kt:17)`,
	"scala": `scala.MatchError: List(1) (of class scala.collection.immutable.$colon$colon)
	at Main$.delayedEndpoint$Main$1(Main.scala:3)
	at Main.main(Main.scala)`,
	"python": `Traceback (most recent call last):
  File "/srv/app/pay.py", line 31, in charge
    gateway.send(amount)
    ~~~~~~~~~~~~^^^^^^^^
  File "/srv/app/gateway.py", line 12, in send
    raise TimeoutError("no answer")
  [Previous line repeated 3 more times]
TimeoutError: no answer

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/app/main.py", line 4, in <module>
    charge()
bank.errors.PaymentFailed: order 9

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/app/main.py", line 6, in <module>
    cleanup()
KeyboardInterrupt`,
	"python logged": `ERROR:root:charge failed
Traceback (most recent call last):
  File "/srv/app/pay.py", line 31, in charge
    1 / 0
ZeroDivisionError: division by zero`,
	"python group": `  + Exception Group Traceback (most recent call last):
  |   File "/srv/app/main.py", line 2, in <module>
  |     raise ExceptionGroup("eg", [ValueError(1), TypeError(2)])
  | ExceptionGroup: eg (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/app/a.py", line 1, in f
    | ValueError: 1
    +---------------- 2 ----------------
    | TypeError: 2
    +------------------------------------`,
	"python syntax": `Traceback (most recent call last):
  File "/srv/app/main.py", line 1, in <module>
    import broken
  File "/srv/app/broken.py", line 3
    foo(
       ^
SyntaxError: '(' was never closed`,
	"python script": `  File "/srv/app/broken.py", line 3
    foo(
       ^
SyntaxError: '(' was never closed`,
	"go": `panic: runtime error: invalid memory address or nil pointer dereference [recovered]
	panic: again
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48f0a1]

goroutine 1 [running]:
main.(*ledger).post(0x0, {0x1, 0x2})
	/src/ledger.go:31 +0x1d
panic({0x4a1e20?, 0x53c1d0?})
	/usr/local/go/src/runtime/panic.go:787 +0x132
main.main()
	/src/main.go:12 +0x2a

goroutine 18 [chan receive, 5 minutes]:
main.pool[...].work(0xc000010000)
	/src/pool.go:9 +0x11
created by main.start in goroutine 1
	/src/pool.go:30 +0x55
exit status 2`,
	"go fatal": `fatal error: all goroutines are asleep - deadlock!

goroutine 1 gp=0xc000002380 m=0 mp=0x5a [chan send]:
main.main()
	/src/main.go:5 +0x28`,
	"go quit": `SIGQUIT: quit
PC=0x46a1c1 m=0 sigcode=0

goroutine 0 gp=0x55f2c0 m=0 mp=0x5600e0 [idle]:
runtime.futex(0x560228, 0x80, 0x0, 0x0, 0x0, 0x0)
	/usr/local/go/src/runtime/sys_linux_amd64.s:557 +0x21

rax    0xca
rip    0x46a1c1`,
	"go http": `2026/11/25 10:00:00 http: panic serving 10.0.0.9:4711: boom
goroutine 35 [running]:
net/http.(*conn).serve.func1()
	/usr/local/go/src/net/http/server.go:1947 +0xbe
created by net/http.(*Server).Serve in goroutine 1
	/usr/local/go/src/net/http/server.go:3454 +0x485`,
	"dotnet": `Unhandled exception. System.InvalidOperationException: outer
 ---> System.ArgumentNullException: Value cannot be null. (Parameter 'id')
   at Bank.Ledger.Find(String id) in /src/Ledger.cs:line 14
   --- End of inner exception stack trace ---
   at Bank.Api.<>c__DisplayClass0_0.<<Main>b__0>d.MoveNext() in /src/Api.cs:line 40
--- End of stack trace from previous location ---
   at Bank.Program.Main(String[] args)`,
	"dotnet logged": `[10:00:00 ERR] request failed
System.TimeoutException: The operation has timed out.
   at Bank.Gateway.Send(Int32 cents, CancellationToken token)`,
	"dotnet console": `fail: Microsoft.AspNetCore.Server.Kestrel[13]
      Connection id "0HM", Request id "0HM:1": An unhandled exception was thrown by the application.
      System.Exception: boom
         at Bank.Startup.Run(HttpContext context) in /src/Startup.cs:line 9`,
	"node": `TypeError: Cannot read properties of undefined (reading 'id')
    at find (/app/src/ledger.js:10:9)
    at async Promise.all (index 0)
    at async /app/src/main.js:3:1
    at new Account (file:///app/src/account.mjs:4:11)
    at Array.map (<anonymous>)
    at get total [as total] (/app/src/a.js:1:2)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)`,
	"node code": `Error: connect ECONNREFUSED 10.0.0.4:5432
    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1555:16) {
  errno: -111,
  code: 'ECONNREFUSED',
  [cause]: Error: refused
      at dial (/app/net.js:1:2) {
    code: 'X'
  }
}`,
	"node stackless": `[Error: ENOENT: no such file or directory, open '/x'] {
  errno: -2,
  code: 'ENOENT'
}`,
	"node uncaught": `/app/index.js:10
    throw new TypeError("x");
    ^

TypeError: x
    at Object.<anonymous> (/app/index.js:10:9)
    at node:internal/main/run_main_module:28:49 {
  code: 'E_X'
}

Node.js v20.10.0`,
	"node rejected": `node:internal/process/promises:288
            triggerUncaughtException(err, true /* fromPromise */);
            ^

[UnhandledPromiseRejection: This error originated inside of an async function] {
  code: 'ERR_UNHANDLED_REJECTION'
}

Node.js v20.10.0`,
	"node thrown text": `/app/index.js:1
throw 'boom';
^
boom
(Use ` + "`node --trace-uncaught ...`" + ` to show where the exception was thrown)

Node.js v22.1.0`,
	"ruby": `/app/ledger.rb:31:in 'Ledger#post': undefined method 'cents' for nil (NoMethodError)

    amount.cents
          ^^^^^^
Did you mean?  cent
	from /app/pool.rb:9:in 'block in Pool#run'
	from <internal:kernel>:187:in 'loop'
	 ... 100 levels...
	from main.rb:4:in '<main>'`,
	"ruby short": "main.rb:1:in `f': boom (RuntimeError)\n\tfrom main.rb:3:in `<main>'",
	"rust": `thread 'main' panicked at src/main.rs:4:5:
assertion ` + "`left == right`" + ` failed
  left: 1
 right: 2
stack backtrace:
   0: rust_begin_unwind
             at /rustc/9fc6b4/library/std/src/panicking.rs:645:5
   1: core::panicking::panic_fmt
             at /rustc/9fc6b4/library/core/src/panicking.rs:72:14
  10: ledger::main
             at ./src/main.rs:4:5
note: Some details are omitted, run with ` + "`RUST_BACKTRACE=full`" + ` for a verbose backtrace.`,
	"rust short": `thread 'tokio-runtime-worker' (4711) panicked at src/pool.rs:9:1:
called ` + "`Result::unwrap()`" + ` on an Err value: Timeout
note: run with ` + "`RUST_BACKTRACE=1`" + ` environment variable to display a backtrace`,
	"rust old": `thread '<unnamed>' panicked at 'boom', src/main.rs:2:5
note: run with ` + "`RUST_BACKTRACE=1`" + ` environment variable to display a backtrace`,
	"rust anyhow": `Error: loading the ledger

Caused by:
    0: opening the file
    1: No such file or directory (os error 2)

Stack backtrace:
   0: anyhow::error::<impl>::from
             at /home/app/.cargo/registry/src/anyhow-1.0.75/src/error.rs:565:25`,
}

// singles are lines of which each is a record.
var singles = []string{
	`2026-11-25T10:00:00.123Z INFO  ledger posted 7 entries`,
	`2026-11-25 10:00:00,123 [main] ERROR c.b.App - failed`,
	`{"level":"error","msg":"boom","stack":"a\n\tat b"}`,
	`time=2026-11-25T10:00:00Z level=info msg="ready"`,
	`10.0.0.9 - - [25/Nov/2026:10:00:00 +0000] "GET /pay HTTP/1.1" 200 12 "-" "curl/8.0"`,
	`2026/11/25 10:00:00 [error] 7#7: *1 open() "/x" failed (2: No such file or directory)`,
	`I1125 10:00:00.000000       1 controller.go:31] synced`,
	`E1125 10:00:00.000000       1 controller.go:31] not synced`,
	`<34>1 2026-11-25T10:00:00Z host su - - - failed`,
	`Nov 25 10:00:00 host sshd[7]: accepted`,
	`[2026-11-25 10:00:00] app.INFO: ready`,
	`[INFO] ready`,
	`INFO:     10.0.0.9:4711 - "GET / HTTP/1.1" 200 OK`,
	`WARN [main] slow`,
	"\x1b[32minfo\x1b[0m: ready",
	`1795600000.123 tick`,
	`listening on :8080`,
	`Done`,
	``,
	`Summary of the run:`,
	`  accounts   12`,
	`    at the end of the day we close the books`,
	`   at noon (the first run)`,
	`  from the start: in order`,
	`	indented by a tab`,
	`- item (one)`,
	`Caused by: an operator who left`,
	`goroutine pool is full`,
	`panic mode is off`,
	`{`,
	`  "pretty": true`,
	`}`,
	`https://bank.example/pay:8080`,
	`thread pool has 7 workers`,
	`Traceback is off`,
	`info: ready`,
	`node: v20 is in use`,
	`日本語の行`,
}
