//! `--otlp-endpoint`: a span for each request, each attempt and each call of a module, sent to a collector.

use crate::support::{Builder, Collector, Gateway, Module, Nowhere, Span, Worker, obliging};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const CALLERS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLERS_SPAN: &str = "b7ad6b7169203331";

const SERVER: u64 = 2;
const CLIENT: u64 = 3;

fn traced(worker: &Worker, collector: &Collector) -> Builder {
    // What looks whether the gateway is ready is no caller, and has no span.
    Gateway::with_modules(worker)
        .arg(format!("--otlp-endpoint={}", collector.url()))
        .arg("--log-fields=id,path,trace_id")
}

fn of_kind(spans: &[Span], kind: u64) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind() == kind).collect()
}

#[test]
fn a_request_its_attempts_and_its_modules_are_spans_of_the_callers_trace() {
    let (collector, turn) = (Collector::start(), AtomicUsize::new(0));
    let worker = Worker::new(move |_, conn| {
        let is_first = turn.fetch_add(1, Ordering::Relaxed) == 0;
        conn.answer(if is_first { 503 } else { 200 }, "hello");
    });
    let gateway = traced(&worker, &collector).start();
    gateway.add(&Module::hostile());
    let headers = [("traceparent", CALLER), ("tracestate", "a=1"), ("User-Agent", "me")];
    assert_eq!(gateway.request("POST", "/v1/chat/completions?key=s3cret", &headers, b"{}").status, 200);
    let spans = collector.wait_for(5);
    assert_eq!(spans.len(), 5, "{spans:?}");
    assert!(spans.iter().all(|span| span.text("traceId") == CALLERS_TRACE));
    let mut ids: Vec<_> = spans.iter().map(|span| span.text("spanId")).chain([CALLERS_SPAN]).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6, "each has an id of its own: {spans:?}");
    let [request] = of_kind(&spans, SERVER)[..] else { panic!("one request: {spans:?}") };
    assert_eq!((request.text("name"), request.text("parentSpanId")), ("POST /v1/chat/completions", CALLERS_SPAN));
    assert_eq!(request.attribute("http.response.status_code"), "200");
    assert_eq!(request.attribute("user_agent.original"), "me");
    let attempts = of_kind(&spans, CLIENT);
    let statuses: Vec<_> = attempts.iter().map(|span| span.attribute("http.response.status_code")).collect();
    assert_eq!(statuses, ["503", "200"]);
    assert_eq!(attempts[1].attribute("http.request.resend_count"), "1");
    let parts = spans.iter().filter(|span| span.kind() != SERVER);
    assert!(parts.clone().all(|span| span.text("parentSpanId") == request.text("spanId")));
    let mut calls: Vec<_> = parts.filter(|span| span.kind() != CLIENT).map(|span| span.text("name")).collect();
    calls.sort_unstable();
    assert_eq!(calls, ["hostile on-request", "hostile on-response"]);
    // What each attempt's worker is told is that attempt's span.
    for (attempt, received) in attempts.iter().zip(worker.requests()) {
        let parent = format!("00-{CALLERS_TRACE}-{}-01", attempt.text("spanId"));
        assert_eq!(received.headers.get("traceparent"), Some(parent.as_str()));
        assert_eq!(received.headers.get("tracestate"), Some("a=1"));
    }
    assert!(!format!("{spans:?}").contains("s3cret"), "a query may hold keys");
    gateway.wait_for_log(&format!("trace_id={CALLERS_TRACE}"));
}

#[test]
fn without_a_caller_s_trace_one_begins_and_what_is_not_one_is_not_taken() {
    let (collector, worker) = (Collector::start(), obliging());
    let gateway = traced(&worker, &collector).start();
    let wrong = ["", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "zz"];
    for parent in wrong {
        gateway.request("GET", "/", &[("traceparent", parent)], b"");
    }
    let spans = collector.wait_for(2 * wrong.len());
    let requests = of_kind(&spans, SERVER);
    let mut traces: Vec<_> = requests.iter().map(|span| span.text("traceId")).collect();
    assert!(requests.iter().all(|span| span.text("parentSpanId").is_empty()));
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), wrong.len(), "each has its own");
    assert!(worker.requests().iter().all(|request| request.headers.all("traceparent").len() == 1));
}

#[test]
fn a_caller_that_does_not_record_and_a_ratio_of_none_cost_no_span() {
    let (collector, worker) = (Collector::start(), Worker::echo());
    let gateway = traced(&worker, &collector).arg("--otlp-sample-ratio=0").start();
    let unsampled = CALLER.replace("-01", "-00");
    gateway.request("GET", "/unsampled", &[("traceparent", &unsampled)], b"");
    assert_eq!(worker.wait_for_request().headers.get("traceparent"), Some(unsampled.as_str()), "passed on as it is");
    gateway.get("/none");
    gateway.request("GET", "/sampled", &[("traceparent", CALLER)], b"");
    let spans = collector.wait_for(2);
    assert!(spans.iter().all(|span| span.text("traceId") == CALLERS_TRACE), "{spans:?}");
    assert_eq!(of_kind(&spans, SERVER)[0].attribute("url.path"), "/sampled");
}

#[test]
fn spans_that_wait_are_sent_before_the_process_ends() {
    let (collector, worker) = (Collector::start(), Worker::echo());
    let mut gateway = traced(&worker, &collector).start();
    (0..20).for_each(|_| drop(gateway.get("/")));
    gateway.terminate();
    assert_eq!(gateway.wait_exit(Duration::from_secs(10)).code(), Some(0));
    assert_eq!(of_kind(&collector.spans(), SERVER).len(), 20);
}

#[test]
fn a_collector_that_is_not_there_costs_spans_and_no_request() {
    let (mut gone, worker) = (Worker::echo(), Worker::echo());
    gone.stop();
    let gateway = Gateway::builder().worker(&worker).arg(format!("--otlp-endpoint={}", gone.url())).start();
    (0..20).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    assert_eq!(gateway.metrics().sum("smg_trace_spans_total", &[("outcome", "exported")]), 0.0);
}

// Long before anything is lost.
#[test]
fn a_collector_that_is_not_there_is_named_in_the_log_at_once() {
    let (worker, nowhere) = (Worker::echo(), Nowhere::refusing());
    let endpoint = format!("--otlp-endpoint=http://{}", nowhere.address);
    let gateway = Gateway::builder().worker(&worker).args([&endpoint, "--shards=1", "--log-level=warn"]).start();
    let mut client = gateway.connect();
    // As many spans as are not kept waiting for more.
    for _ in 0..256 {
        client.get("/");
    }
    let line = gateway.wait_for_log("spans are not taken");
    assert!(line.contains("WARN") && line.contains("refused"), "{line}");
    assert!(!gateway.log().contains("spans are lost"), "{}", gateway.log());
}
