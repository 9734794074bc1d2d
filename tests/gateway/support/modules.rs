//! Deploying modules, provoking them, and what the gateway says of them.

use super::client::Response;
use super::conn::{Conn, ReceivedRequest};
use super::gateway::{Builder, Gateway, guest};
use super::metrics::Metrics;
use super::worker::Worker;
use serde_json::{Value, json};

/// What `POST /wasm` takes for one module.
#[derive(Clone)]
pub struct Module(Value);

impl Module {
    /// At both hooks, with nothing else said.
    pub fn new(name: &str, file: &str) -> Self {
        Module(json!({ "name": name, "file_path": file, "module_type": "Middleware" })).at(&["OnRequest", "OnResponse"])
    }

    /// The guest that misbehaves as the headers `x-hostile` and `x-hostile-response` say.
    pub fn hostile() -> Self {
        Self::new("hostile", &guest("hostile"))
    }

    pub fn at(self, points: &[&str]) -> Self {
        let points = points.iter().map(|point| json!({ "Middleware": point })).collect();
        self.set("attach_points", points)
    }

    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }

    pub fn json(&self) -> &Value {
        &self.0
    }
}

impl Gateway {
    /// A gateway that runs modules before `worker`.
    pub fn with_modules(worker: &Worker) -> Builder {
        Self::builder().worker(worker).arg("--enable-wasm")
    }

    /// Deploys a module; its uuid.
    #[track_caller]
    pub fn add(&self, module: &Module) -> String {
        let answer = self.try_deploy(module.json());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let uuid = &answer.json()["modules"][0]["add_result"]["Success"];
        uuid.as_str().unwrap_or_else(|| panic!("no uuid in {}", answer.text())).to_owned()
    }

    /// Tries to deploy a module that must be refused; why it was.
    #[track_caller]
    pub fn refusal(&self, module: &Module) -> String {
        let answer = self.try_deploy(module.json());
        assert_eq!(answer.status, 400, "{}", answer.text());
        let error = &answer.json()["modules"][0]["add_result"]["Error"];
        error.as_str().unwrap_or_else(|| panic!("no error in {}", answer.text())).to_owned()
    }

    #[track_caller]
    pub fn remove(&self, uuid: &str) {
        let answer = self.request("DELETE", &format!("/wasm/{uuid}"), &[], b"");
        assert_eq!((answer.status, answer.text().as_str()), (200, "Module removed successfully"));
    }

    /// A request that tells the hostile guest what to do with it.
    #[track_caller]
    pub fn provoke(&self, behaviour: &str) -> Response {
        self.request("GET", "/", &[("X-Hostile", behaviour)], b"")
    }

    /// A request to whose answer [`obliging`] adds what the hostile guest shall do with that.
    #[track_caller]
    pub fn provoke_response(&self, behaviour: &str) -> Response {
        self.request("GET", "/", &[("X-Answer", &format!("X-Hostile-Response: {behaviour}"))], b"")
    }

    /// `GET /wasm`
    #[track_caller]
    pub fn modules(&self) -> Value {
        let answer = self.get("/wasm");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// What `GET /wasm/UUID` says of a module.
    #[track_caller]
    pub fn meta(&self, uuid: &str) -> Value {
        let answer = self.get(&format!("/wasm/{uuid}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["module_meta"].take()
    }

    /// How often the module failed in this way, by `GET /wasm/UUID` and `/metrics` alike.
    #[track_caller]
    pub fn failures(&self, uuid: &str, kind: &str) -> u64 {
        let meta = self.meta(uuid);
        let count = meta["failures"][kind].as_u64().unwrap_or(0);
        let labels = [("module", meta["name"].as_str().expect("a name")), ("outcome", kind)];
        let counted = self.metrics().sum("smg_wasm_executions_total", &labels);
        assert_eq!(counted, count as f64, "GET /wasm and /metrics agree on {kind}");
        count
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::parse(&answer.text())
    }
}

/// A worker that answers like [`Worker::echo`], but with the status that `x-answer-status` of the request says, and
/// with each value of `x-answer` as a further line of its head.
pub fn obliging() -> Worker {
    Worker::new(oblige)
}

fn oblige(request: &ReceivedRequest, conn: &mut Conn) {
    let status = request.headers.get("x-answer-status").unwrap_or("200");
    let headers: Vec<_> = request.headers.iter().collect();
    let body = json!({ "target": request.target, "headers": headers, "body_length": request.body.len() }).to_string();
    let lines: String = request.headers.all("x-answer").iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!("HTTP/1.1 {status} S\r\nContent-Type: application/json\r\n{lines}");
    let bodiless = request.method == "HEAD" || matches!(status, "204" | "304");
    let length = if status == "204" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    conn.send(format!("{head}{length}\r\n{}", if bodiless { "" } else { &body }));
}
