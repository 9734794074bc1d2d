//! A scripted worker that speaks HTTP/2, frame by frame: it reads requests strictly, notes them, and answers whatever
//! frames its script writes.

use super::h2_frames::{Code, Frame, PREFACE};
use super::h2_link::{H2Request, Link};
use super::h2_raw::RawH2;
use super::h2_stream::H2Stream;
use super::relay::Relay;
use super::requests::Requests;
use super::tls::Acceptor;
use super::wait::eventually;
use super::worker::asks_for_models;
use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Script = dyn Fn(&H2Request, &H2Stream) + Send + Sync;

/// Listens until it is dropped or stopped. Answers `GET /health` itself with [`H2Worker::set_health`]'s status.
pub struct H2Worker {
    address: SocketAddr,
    seen: Arc<Seen>,
    accepting: Option<JoinHandle<()>>,
    relay: Option<Relay>,
}

/// When a script starts.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    OnHead,
    OnWholeRequest,
}

pub struct H2Builder {
    settings: Vec<(u16, u32)>,
    start: Start,
    grants: Grants,
    tls: Option<Acceptor>,
}

/// Whether a worker opens its windows again after what has come.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Grants {
    Everything,
    Nothing,
}

#[derive(Default)]
struct Notes {
    resets: Vec<(String, Code)>,
    broken: Vec<String>,
    open: HashMap<usize, Arc<Link>>,
    stopped: bool,
}

pub(super) struct Seen {
    health: AtomicU16,
    requests: Requests<H2Request>,
    notes: Mutex<Notes>,
}

impl H2Builder {
    /// What the worker's SETTINGS say.
    pub fn settings(mut self, settings: &[(u16, u32)]) -> Self {
        self.settings = settings.into();
        self
    }

    /// Scripts start as soon as a head was read; the body is theirs to wait for.
    pub fn on_head(mut self) -> Self {
        self.start = Start::OnHead;
        self
    }

    /// Never opens a window.
    pub fn takes_one_window(mut self) -> Self {
        self.grants = Grants::Nothing;
        self
    }

    pub fn tls(mut self, acceptor: Acceptor) -> Self {
        self.tls = Some(acceptor);
        self
    }

    pub fn start(self, script: impl Fn(&H2Request, &H2Stream) + Send + Sync + 'static) -> H2Worker {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let relay = self.tls.clone().map(|acceptor| Relay::start(acceptor, address));
        let seen = Seen { health: AtomicU16::new(200), requests: Requests::default(), notes: Mutex::default() };
        let seen = Arc::new(seen);
        let (noting, script): (_, Arc<Script>) = (seen.clone(), Arc::new(script));
        let accepting = std::thread::spawn(move || accept(&listener, &self, &script, &noting));
        H2Worker { address, seen, accepting: Some(accepting), relay }
    }
}

impl H2Worker {
    pub fn builder() -> H2Builder {
        H2Builder { settings: Vec::new(), start: Start::OnWholeRequest, grants: Grants::Everything, tls: None }
    }

    /// Runs `script` in a thread of its own for each request, once its body was read.
    pub fn new(script: impl Fn(&H2Request, &H2Stream) + Send + Sync + 'static) -> Self {
        Self::builder().start(script)
    }

    /// Answers 200 with the path.
    pub fn echo() -> Self {
        Self::new(|request, stream| stream.answer(200, &request.path))
    }

    pub fn url(&self) -> String {
        match &self.relay {
            None => format!("http://{}", self.address),
            Some(relay) => format!("https://{}", relay.address),
        }
    }

    /// The status of the next health checks; 0 gives them to the script like any other request.
    pub fn set_health(&self, status: u16) {
        self.seen.health.store(status, Ordering::SeqCst);
    }

    /// Every request so far that a script was started for, health checks aside.
    pub fn requests(&self) -> Vec<H2Request> {
        self.seen.requests.all()
    }

    /// The next request not yet taken by this call; waits for it.
    #[track_caller]
    pub fn wait_for_request(&self) -> H2Request {
        self.seen.requests.next()
    }

    /// What the gateway has reset, by path.
    pub fn resets(&self) -> Vec<(String, Code)> {
        self.seen.notes().resets.clone()
    }

    /// Waits for `count` resets; how long it took.
    #[track_caller]
    pub fn wait_for_resets(&self, count: usize) -> Duration {
        let start = Instant::now();
        eventually(Duration::from_secs(10), || self.resets().len() >= count);
        start.elapsed()
    }

    /// What was no HTTP/2, or a connection error of the gateway's.
    pub fn broken(&self) -> Vec<String> {
        self.seen.notes().broken.clone()
    }

    /// How many connections carried something other than health checks.
    pub fn connections(&self) -> usize {
        self.seen.requests.connections(|request| request.connection)
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.seen.notes().open.len()
    }

    /// Bytes of requests' bodies on the connections that are open.
    pub fn received(&self) -> usize {
        self.links().iter().map(|link| link.received()).sum()
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.seen.notes().open.values().cloned().collect()
    }

    /// Says on every connection that no stream after `last` was or will be looked at.
    pub fn goaway(&self, last: u32, code: Code) {
        self.links().iter().for_each(|link| link.goaway(last, code));
    }

    /// Ends every connection, without a word.
    pub fn hang_up(&self) {
        self.links().iter().for_each(|link| link.hang_up());
    }

    /// Stops listening and drops every connection.
    pub fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.seen.notes().stopped = true;
        let _ = TcpStream::connect(self.address);
        let _ = accepting.join();
        self.hang_up();
    }
}

impl Drop for H2Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Seen {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }
}

fn accept(listener: &TcpListener, settings: &H2Builder, script: &Arc<Script>, seen: &Arc<Seen>) {
    for (id, stream) in listener.incoming().enumerate() {
        let (Ok(mut stream), false) = (stream, seen.notes().stopped) else { return };
        let link = Arc::new(Link::new(id, stream.try_clone().expect("descriptors are left"), settings.grants));
        seen.notes().open.insert(id, link.clone());
        let (script, seen, start) = (script.clone(), seen.clone(), settings.start);
        let ours = Frame::settings(&settings.settings);
        std::thread::spawn(move || {
            let mut preface = [0; PREFACE.len()];
            match stream.read_exact(&mut preface) {
                Ok(()) if preface == *PREFACE => {
                    link.send(&ours);
                    let ended = serve(RawH2::on(stream), &link, start, &script, &seen);
                    seen.notes().broken.extend(ended.err());
                }
                Ok(()) => seen.notes().broken.push(format!("no preface: {preface:?}")),
                Err(_) => {}
            }
            link.end();
            seen.notes().open.remove(&id);
        });
    }
}

/// Serves a connection to its end; `Err` says what was wrong with what came.
fn serve(mut raw: RawH2, link: &Arc<Link>, start: Start, script: &Arc<Script>, seen: &Arc<Seen>) -> Result<(), String> {
    loop {
        let frame = match raw.read() {
            Ok(Some(frame)) => frame,
            Err(e) if e.kind() == ErrorKind::TimedOut => continue,
            Ok(None) | Err(_) => return Ok(()),
        };
        // A request is a copy with its body so far: not for each frame.
        if frame.kind == Frame::RST_STREAM
            && let Some(request) = link.request(frame.stream)
        {
            seen.notes().resets.push((request.path, frame.code()));
        }
        if frame.kind == Frame::GOAWAY && frame.code() != Code::NO_ERROR {
            return Err(format!("{frame:?}"));
        }
        let taken = link.take(&frame)?;
        let is_due = if start == Start::OnHead { taken.head } else { taken.end };
        let Some(request) = is_due.then(|| link.request(frame.stream)).flatten() else { continue };
        let stream = H2Stream::new(link.clone(), frame.stream);
        let health = seen.health.load(Ordering::SeqCst);
        if request.path == "/health" && health != 0 {
            stream.answer(health, "");
        } else if asks_for_models(&request.path, &request.headers) {
            stream.answer(404, "");
        } else {
            seen.requests.add(request.clone());
            let script = script.clone();
            std::thread::spawn(move || script(&request, &stream));
        }
    }
}

/// Ends a socket in both directions.
pub(super) fn shut(socket: &TcpStream) {
    let _ = socket.shutdown(Shutdown::Both);
}
