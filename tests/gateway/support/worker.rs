//! A scripted worker: it reads requests strictly, notes them, and answers whatever bytes its script writes.

use super::conn::{Conn, ReceivedRequest, Start};
use super::message::Headers;
use super::requests::Requests;
use super::tls::{Acceptor, Channel};
use super::wait::eventually;
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

type Script = dyn Fn(&ReceivedRequest, &mut Conn) + Send + Sync;

/// Listens until it is dropped or stopped. Answers `GET /health` itself with [`Worker::set_health`]'s status, and the
/// gateway's own question for its models with those of [`Worker::set_models`].
pub struct Worker {
    pub address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Seen>,
    accepting: Option<JoinHandle<()>>,
}

struct Seen {
    health: AtomicU16,
    /// The script answers everything.
    is_bare: AtomicBool,
    models: Mutex<Vec<&'static str>>,
    requests: Requests<ReceivedRequest>,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    broken: Vec<String>,
    closed: usize,
    open: HashMap<usize, TcpStream>,
    stopped: bool,
}

impl Worker {
    /// Runs `script` for each request, once its body was read (and 100 Continue sent if it was expected).
    pub fn new(script: impl Fn(&ReceivedRequest, &mut Conn) + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), Start::OnWholeRequest, Arc::new(script))
    }

    /// Runs `script` as soon as a head was read; the body is the script's to read.
    pub fn on_head(script: impl Fn(&ReceivedRequest, &mut Conn) + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), Start::OnHead, Arc::new(script))
    }

    /// Like [`Worker::on_head`], on connections that hold little of what the script does not read.
    pub fn on_head_with_little_room(script: impl Fn(&ReceivedRequest, &mut Conn) + Send + Sync + 'static) -> Self {
        Self::listen_with(little_room(), Start::OnHead, None, Arc::new(script))
    }

    /// Like [`Worker::new`], with TLS.
    pub fn with_tls(acceptor: Acceptor, script: impl Fn(&ReceivedRequest, &mut Conn) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        Self::listen_with(listener, Start::OnWholeRequest, Some(acceptor), Arc::new(script))
    }

    /// Answers each request with the same bytes.
    pub fn fixed(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |_, conn| conn.send(&answer))
    }

    /// Answers each request with its bytes, then ends the connection.
    pub fn fixed_then_close(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |_, conn| {
            conn.send(&answer);
            conn.close();
        })
    }

    /// Answers 200 with JSON: method, path, headers as a list of pairs, body length.
    pub fn echo() -> Self {
        Self::new(echo)
    }

    /// An echo worker on an address chosen beforehand.
    pub fn echo_on(address: SocketAddr) -> Self {
        Self::listen(address, Start::OnWholeRequest, Arc::new(echo))
    }

    fn listen(address: SocketAddr, start: Start, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        Self::listen_with(listener, start, None, script)
    }

    fn listen_with(listener: TcpListener, start: Start, tls: Option<Acceptor>, script: Arc<Script>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = listener.local_addr().expect("a listener has an address");
        let seen = Arc::new(Seen {
            health: AtomicU16::new(200),
            is_bare: AtomicBool::new(false),
            models: Mutex::default(),
            requests: Requests::default(),
            notes: Mutex::default(),
        });
        let noting = seen.clone();
        let accepting = std::thread::spawn(move || accept(&listener, start, tls.as_ref(), &script, &noting));
        Worker { address, scheme, seen, accepting: Some(accepting) }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The status of the next health checks; 0 gives them to the script like any other request.
    pub fn set_health(&self, status: u16) {
        self.seen.health.store(status, Ordering::SeqCst);
    }

    /// Leaves everything to the script: health checks and the gateway's questions for models, too.
    #[must_use]
    pub fn bare(self) -> Self {
        self.seen.is_bare.store(true, Ordering::SeqCst);
        self
    }

    /// What it lists from now on.
    pub fn set_models(&self, models: &[&'static str]) {
        *self.seen.models.lock().unwrap() = models.to_vec();
    }

    /// Stops listening and drops every connection: from now on connecting is refused.
    pub fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        let mut notes = self.seen.notes();
        notes.stopped = true;
        let open = std::mem::take(&mut notes.open);
        drop(notes);
        let _ = TcpStream::connect(self.address);
        let _ = accepting.join();
        for stream in open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Every request so far, health checks aside.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.seen.requests.all()
    }

    /// The next request not yet taken by this call; waits for it.
    #[track_caller]
    pub fn wait_for_request(&self) -> ReceivedRequest {
        self.seen.requests.next()
    }

    /// What was no request: handshakes that fail, heads that don't parse, bodies that break off.
    pub fn broken(&self) -> Vec<String> {
        self.seen.notes().broken.clone()
    }

    /// How many connections carried something other than health checks.
    pub fn connections(&self) -> usize {
        self.seen.requests.connections(|request| request.connection)
    }

    /// Waits until `count` connections, health checks aside, were ended by either side.
    #[track_caller]
    pub fn wait_for_closed(&self, count: usize) {
        eventually(Duration::from_secs(10), || self.seen.notes().closed >= count);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Seen {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    fn health(&self) -> u16 {
        self.health.load(Ordering::SeqCst)
    }

    fn is_health_check(&self, request: &ReceivedRequest) -> bool {
        request.target == "/health" && self.health() != 0
    }

    fn answer_models(&self, conn: &mut Conn) {
        let models = self.models.lock().unwrap().clone();
        if models.is_empty() {
            return conn.answer(404, "");
        }
        let data: Vec<_> = models.iter().map(|id| serde_json::json!({"id": id, "object": "model"})).collect();
        conn.answer_json(&serde_json::json!({"object": "list", "data": data}));
    }
}

/// What is accepted inherits the size of the buffer, which must be set before the window is offered.
fn little_room() -> TcpListener {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let _in_runtime = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4().expect("descriptors are left");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer is allowed");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
    let listener = socket.listen(128).and_then(tokio::net::TcpListener::into_std).expect("a bound socket can listen");
    listener.set_nonblocking(false).expect("a socket can");
    listener
}

fn accept(listener: &TcpListener, start: Start, tls: Option<&Acceptor>, script: &Arc<Script>, seen: &Arc<Seen>) {
    for (id, stream) in listener.incoming().enumerate() {
        let (Ok(stream), false) = (stream, seen.notes().stopped) else {
            return;
        };
        let twin = stream.try_clone().expect("descriptors are left");
        seen.notes().open.insert(id, twin);
        let (tls, script, seen) = (tls.cloned(), script.clone(), seen.clone());
        std::thread::spawn(move || {
            let channel = match tls {
                None => Ok(Channel::from(stream)),
                Some(tls) => tls.accept(stream),
            };
            match channel {
                Ok(channel) => {
                    let carried = serve(Conn::new(channel, id), start, &*script, &seen);
                    seen.notes().closed += usize::from(carried > 0);
                }
                Err(e) => {
                    let mut notes = seen.notes();
                    notes.open.remove(&id);
                    notes.broken.push(format!("TLS: {e}"));
                }
            }
        });
    }
}

/// Serves a connection to its end; how many requests it carried.
fn serve(mut conn: Conn, start: Start, script: &Script, seen: &Seen) -> usize {
    let id = conn.id();
    let mut nth = 0;
    while conn.is_kept() {
        let answers_itself = !seen.is_bare.load(Ordering::SeqCst);
        match conn.read_request(start, nth) {
            Ok(Some(request)) if answers_itself && seen.is_health_check(&request) => conn.answer(seen.health(), ""),
            Ok(Some(request)) if answers_itself && asks_for_models(&request.target, &request.headers) => {
                seen.answer_models(&mut conn)
            }
            Ok(Some(request)) => {
                nth += 1;
                seen.requests.add(request.clone());
                script(&request, &mut conn);
            }
            Ok(None) => break,
            Err(e) => {
                seen.notes().broken.extend(conn.left_over(&e));
                break;
            }
        }
    }
    seen.notes().open.remove(&id);
    conn.finish();
    nth
}

/// Whether the gateway itself asks.
pub(super) fn asks_for_models(target: &str, headers: &Headers) -> bool {
    target == "/v1/models" && headers.get("user-agent") == Some("smg-health")
}

fn echo(request: &ReceivedRequest, conn: &mut Conn) {
    let headers: Vec<_> = request.headers.iter().collect();
    conn.answer_json(&serde_json::json!({
        "method": request.method,
        "path": request.target,
        "headers": headers,
        "body_length": request.body.len(),
    }));
}
