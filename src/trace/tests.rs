use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;

use super::export::{Exporter, Pace};
use super::target::Environment;
use super::*;

/// A collector: answers with what it was told to, then with 200, and keeps what it got.
#[derive(Default)]
struct Collector {
    answers: RefCell<Vec<(u16, &'static str)>>,
    got: RefCell<Vec<(Request<()>, Json)>>,
    connections: Cell<usize>,
    arrived: Notify,
}

impl Collector {
    /// `answers` are given from the last to the first; a text is a `Retry-After`, or the body with 200.
    async fn start(answers: &[(u16, &'static str)]) -> (Rc<Self>, String) {
        let collector = Rc::new(Self { answers: RefCell::new(answers.to_vec()), ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(collector.clone().serve(listener));
        (collector, format!("http://{address}"))
    }

    async fn serve(self: Rc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let collector = self.clone();
            self.connections.set(self.connections.get() + 1);
            let service = service_fn(move |request| collector.clone().take(request));
            spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    async fn take(self: Rc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        self.got.borrow_mut().push((Request::from_parts(head, ()), body));
        self.arrived.notify_one();
        let (status, text) = self.answers.borrow_mut().pop().unwrap_or((200, "{}"));
        let mut response = Response::new(Full::new(text.into()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if status != 200 && !text.is_empty() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(text));
        }
        Ok(response)
    }

    async fn arrivals(&self, count: usize) {
        let all = async {
            while self.got.borrow().len() < count {
                self.arrived.notified().await;
            }
        };
        timeout(Duration::from_secs(20), all).await.expect("batches arrive");
    }

    fn spans(&self, at: usize) -> Vec<Json> {
        self.got.borrow()[at].1["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
    }
}

async fn no_tls(_: &str, _: TcpStream) -> io::Result<TcpStream> {
    Err(io::ErrorKind::Unsupported.into())
}

fn start(endpoint: &str, sample_ratio: f64, pace: Pace) -> (Rc<Tracer>, Exporter) {
    let environment = |name: &str| (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| "x-key=k".to_owned());
    let environment = Environment::read(environment, "instance".to_owned()).unwrap();
    let (tracer, exporter) = Exporter::start(endpoint.parse().unwrap(), environment, sample_ratio, pace, no_tls);
    (Rc::new(tracer), exporter)
}

/// Batches that are sent at once, and short pauses.
fn quick() -> Pace {
    Pace { batch_spans: 1, first_pause: Duration::from_millis(1), ..Pace::default() }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(test);
}

fn finish(trace: Trace, status: u16) {
    let (client, request_id) = (HeaderValue::from_static("10.0.0.1"), HeaderValue::from_static("r1"));
    let uri = Uri::from_static("/v1/completions?key=secret");
    trace.finish(&Summary {
        method: &Method::POST,
        uri: &uri,
        scheme: "http",
        route: Some("/v1/completions"),
        protocol: "1.1",
        client: &client,
        request_id: &request_id,
        status: StatusCode::from_u16(status).unwrap(),
        error: "",
    });
}

fn target(uri: &Uri) -> Target<'_> {
    Target { method: &Method::POST, uri, scheme: "http", host: "::1", port: 8000 }
}

fn attribute(span: &Json, key: &str) -> Json {
    let found = span["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
    found.map_or(Json::Null, |attribute| attribute["value"].clone())
}

fn parent(flags: &str) -> HeaderMap {
    let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
    let mut headers = HeaderMap::new();
    headers.insert(&TRACEPARENT, HeaderValue::from_str(&text).unwrap());
    headers.insert(header::HOST, HeaderValue::from_static("gateway.example:8443"));
    headers
}

/// The span that `traceparent` names.
fn named(headers: &HeaderMap) -> String {
    headers[&TRACEPARENT].to_str().unwrap()[36..52].to_owned()
}

#[test]
fn a_request_its_attempts_and_its_calls_are_one_tree() {
    run(async {
        let (collector, endpoint) = Collector::start(&[]).await;
        let (tracer, exporter) = start(&endpoint, 0.0, quick());
        let (mut headers, uri) = (parent("01"), Uri::from_static("/v1/completions?key=secret"));
        let mut trace = tracer.begin(&mut headers);
        let server = named(&headers);
        trace.attempt(&target(&uri), &mut headers);
        let first = named(&headers);
        trace.attempt_failed("upstream_connection_failed");
        trace.retry("upstream_connection_failed");
        trace.attempt(&target(&uri), &mut headers);
        let second = named(&headers);
        trace.attempt_answered(StatusCode::OK);
        let (now, module) = (Instant::now(), "auth".into());
        let (hook, verdict) = ("on-request", "trap");
        trace.called(vec![ModuleCall { module, hook, verdict, is_failure: true, start: now, end: now }]);
        trace.first_byte();
        finish(trace, 200);
        collector.arrivals(1).await;
        exporter.finish().await;

        let spans = collector.spans(0);
        let ids = ["b7ad6b7169203331", &server, &first, &second];
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "each span is another");
        let tree: Vec<_> = spans.iter().map(|span| (span["spanId"].as_str(), span["parentSpanId"].as_str())).collect();
        assert_eq!(tree[..2], [(Some(ids[2]), Some(ids[1])), (Some(ids[3]), Some(ids[1]))]);
        assert_eq!((tree[2].1, tree[3]), (Some(ids[1]), (Some(ids[1]), Some(ids[0]))));
        let of = |key: &str| spans.iter().map(|span| attribute(span, key)).collect::<Vec<_>>();
        assert!(spans.iter().all(|span| span["traceId"] == "0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(spans.iter().map(|span| span["kind"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 3, 1, 2]);
        assert_eq!(of("http.request.resend_count")[1]["intValue"], "1");
        assert_eq!(of("error.type")[0]["stringValue"], "upstream_connection_failed");
        assert_eq!((&spans[0]["status"]["code"], &spans[1]["status"]), (&2.into(), &Json::Null));
        assert_eq!(of("url.full")[1]["stringValue"], "http://[::1]:8000/v1/completions");
        assert_eq!(
            (&of("smg.module.verdict")[2]["stringValue"], &spans[2]["name"]),
            (&"trap".into(), &"auth on-request".into())
        );
        assert_eq!(of("http.response.status_code")[3]["intValue"], "200");
        assert_eq!(of("server.address")[3]["stringValue"], "gateway.example");
        assert_eq!((&spans[3]["name"], &spans[3]["flags"]), (&"POST /v1/completions".into(), &0x301.into()));
        let events = spans[3]["events"].as_array().unwrap();
        assert_eq!(
            events.iter().map(|event| event["name"].as_str().unwrap()).collect::<Vec<_>>(),
            ["retry", "first_byte"]
        );
        let time = |span: &Json, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        assert!(spans.iter().all(|span| time(span, "startTimeUnixNano") <= time(span, "endTimeUnixNano")));
        assert!(time(&spans[1], "endTimeUnixNano") >= time(&events[1], "timeUnixNano"), "to the end of the body");

        let (request, body) = &collector.got.borrow()[0];
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v1/traces"));
        assert_eq!(
            (&request.headers()["content-type"], &request.headers()["x-key"]),
            (&"application/json".parse().unwrap(), &"k".parse().unwrap())
        );
        let resource = &body["resourceSpans"][0]["resource"];
        assert_eq!(attribute(resource, "service.name")["stringValue"], "smg");
        assert_eq!(attribute(resource, "service.instance.id")["stringValue"], "instance");
        assert!(!body.to_string().contains("secret"), "queries are not told");
    });
}

#[test]
fn the_caller_decides_what_is_recorded_and_else_the_ratio() {
    run(async {
        let (tracer, _exporter) = start("http://127.0.0.1:1", 0.0, quick());
        let mut headers = parent("00");
        let trace = tracer.begin(&mut headers);
        assert!(!trace.is_recorded());
        assert_eq!(headers, parent("00"), "the worker is the caller's child");
        assert_eq!(trace.id().to_string(), "0af7651916cd43dd8448eb211c80319c");

        let mut headers = HeaderMap::new();
        assert!(!tracer.begin(&mut headers).is_recorded());
        assert!(headers[&TRACEPARENT].to_str().unwrap().ends_with("-00"), "the worker is told so");
        assert!(tracer.begin(&mut parent("01")).is_recorded());
        let (tracer, _exporter) = start("http://127.0.0.1:1", 1.0, quick());
        assert!(tracer.begin(&mut HeaderMap::new()).is_recorded());
    });
}

#[test]
fn a_batch_is_sent_again_when_the_collector_asks_for_it() {
    run(async {
        let (collector, endpoint) = Collector::start(&[(400, ""), (429, "0"), (503, "")]).await;
        let (tracer, exporter) = start(&endpoint, 1.0, quick());
        finish(tracer.begin(&mut HeaderMap::new()), 500);
        collector.arrivals(3).await;
        finish(tracer.begin(&mut HeaderMap::new()), 404);
        collector.arrivals(4).await;
        let counts = exporter.counts.clone();
        exporter.finish().await;
        assert_eq!(collector.spans(0), collector.spans(2), "503, 429: the same again");
        assert_ne!(collector.spans(2), collector.spans(3), "400: lost");
        assert_eq!((counts.failed.load(Relaxed), counts.exported.load(Relaxed)), (1, 1));
        assert_eq!(attribute(&collector.spans(0)[0], "error.type")["stringValue"], "500");
        assert_eq!(collector.spans(3)[0]["status"], Json::Null, "the client's mistake");
    });
}

#[test]
fn an_hour_is_too_long_to_wait() {
    run(async {
        let (collector, endpoint) = Collector::start(&[(503, "3600")]).await;
        let (tracer, exporter) = start(&endpoint, 1.0, quick());
        finish(tracer.begin(&mut HeaderMap::new()), 200);
        finish(tracer.begin(&mut HeaderMap::new()), 200);
        collector.arrivals(2).await;
        let counts = exporter.counts.clone();
        exporter.finish().await;
        assert_eq!((counts.failed.load(Relaxed), counts.exported.load(Relaxed)), (1, 1));
    });
}

#[test]
fn spans_that_the_collector_refuses_are_counted() {
    run(async {
        let partial = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"no"}}"#;
        let (collector, endpoint) = Collector::start(&[(200, "not JSON"), (200, partial)]).await;
        let endpoint = endpoint.replace("http:", "https:");
        let environment = Environment::read(|_| None, String::new()).unwrap();
        // A collector in a tunnel: what it is made of is the caller's affair.
        let tunnel = async |host: &str, stream: TcpStream| {
            assert_eq!(host, "127.0.0.1");
            Ok(stream)
        };
        let (tracer, exporter) = Exporter::start(endpoint.parse().unwrap(), environment, 1.0, quick(), tunnel);
        let tracer = Rc::new(tracer);
        for sent in 1..=3 {
            finish(tracer.begin(&mut HeaderMap::new()), 200);
            collector.arrivals(sent).await;
        }
        let counts = exporter.counts.clone();
        exporter.finish().await;
        assert_eq!((counts.failed.load(Relaxed), counts.exported.load(Relaxed)), (1, 2));
        assert_eq!(collector.connections.get(), 1, "it is kept");
    });
}

#[test]
fn what_is_more_than_the_queue_holds_is_dropped_and_counted() {
    run(async {
        // Nobody listens, and the first batch is tried again for a minute.
        let (tracer, exporter) = start("http://127.0.0.1:1", 1.0, Pace { queue: 8, ..quick() });
        let request = || finish(tracer.begin(&mut HeaderMap::new()), 200);
        request();
        while tracer.queue.capacity() < 8 {
            yield_now().await;
        }
        (0..100).for_each(|_| request());
        assert_eq!(exporter.counts.dropped.load(Relaxed), 92);
        let counts = exporter.counts.clone();
        exporter.finish().await;
        assert_eq!((counts.failed.load(Relaxed), counts.exported.load(Relaxed)), (9, 0));
        request();
        assert_eq!(counts.dropped.load(Relaxed), 93, "after the end");
    });
}

#[test]
fn what_waits_for_its_batch_is_sent_at_the_end() {
    run(async {
        let (collector, endpoint) = Collector::start(&[]).await;
        let (tracer, exporter) =
            start(&format!("{endpoint}/own/path"), 1.0, Pace { batch_time: Duration::MAX / 4, ..Pace::default() });
        (0..600).for_each(|_| finish(tracer.begin(&mut HeaderMap::new()), 200));
        collector.arrivals(1).await;
        exporter.finish().await;
        assert_eq!([collector.spans(0).len(), collector.spans(1).len()], [512, 88]);
        assert_eq!(collector.got.borrow()[0].0.uri().path(), "/own/path");
    });
}

#[test]
fn a_collector_that_says_nothing_does_not_hold_the_end() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (tracer, exporter) = start(&endpoint, 1.0, Pace { flush: Duration::from_millis(50), ..quick() });
        finish(tracer.begin(&mut HeaderMap::new()), 200);
        let _kept_open = listener.accept().await.unwrap();
        timeout(Duration::from_secs(5), exporter.finish()).await.expect("it ends");
    });
}

#[test]
fn texts_and_spans_are_bounded() {
    run(async {
        let (tracer, _exporter) = start("http://127.0.0.1:1", 1.0, quick());
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_bytes(&[0xff; 9000]).unwrap());
        let mut trace = tracer.begin(&mut headers);
        let uri = Uri::from_static("/");
        (0..1000).for_each(|_| trace.attempt(&target(&uri), &mut headers));
        let recording = trace.recording.unwrap();
        assert_eq!(recording.parts.len(), MOST_SPANS);
        let Value::Text(agent) = &recording.request.attributes[0].1 else { panic!("a text") };
        assert_eq!(agent.chars().count(), 512);
    });
}
