//! Requests that a worker keeps in flight for as long as the test wants: a stream whose second half waits for a gate,
//! and an answer that does not end before its client leaves.

use super::client::Client;
use super::conn::Conn;
use super::h2::{H2, Last};
use super::h2_answer::StreamEnd;
use super::wait::Gate;
use super::worker::Worker;
use std::time::Duration;

/// The longest that a test holds a stream.
const PATIENCE: Duration = Duration::from_secs(30);

impl Worker {
    /// Answers `/stream` with two events, the second when `finish` opens, and everything else at once with its path.
    pub fn streaming(finish: &Gate) -> Self {
        let wait = finish.clone();
        Worker::new(move |request, conn| {
            if request.target != "/stream" {
                return conn.answer(200, &request.target);
            }
            conn.start_events();
            conn.chunk("data: 1\n\n");
            wait.wait_within(PATIENCE);
            conn.chunk("data: 2\n\n");
            conn.chunk("");
        })
    }

    /// Runs `begin` and waits for its peer to leave; the gates open at both moments. `/other` is answered at once.
    pub fn until_left(begin: impl Fn(&mut Conn) + Send + Sync + 'static) -> (Self, Gate, Gate) {
        let (begun, ended) = (Gate::new(), Gate::new());
        let (says_begun, says_ended) = (begun.clone(), ended.clone());
        let worker = Worker::on_head(move |request, conn| {
            if request.target == "/other" {
                return conn.answer(200, "other");
            }
            begin(conn);
            says_begun.open();
            if conn.wait_peer_closed(Duration::from_secs(8)) {
                says_ended.open();
            }
        });
        (worker, begun, ended)
    }
}

/// Of a [`Worker::streaming`].
impl Client {
    /// Asks for the stream; its first event is here.
    #[track_caller]
    pub fn begin_stream(&mut self, headers: &[(&str, &str)]) {
        self.send_request("GET", "/stream", headers, b"");
        self.read_until("data: 1\n\n");
    }

    /// Reads the second event and the end of the body.
    #[track_caller]
    pub fn end_stream(&mut self) {
        let rest = self.read_until("0\r\n\r\n");
        assert!(rest.ends_with(b"data: 2\n\n\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    }
}

/// Of a [`Worker::streaming`].
impl H2 {
    /// Asks for the stream; its first event is here.
    #[track_caller]
    pub fn begin_stream(&mut self) -> u32 {
        let stream = self.start("GET", "/stream", &[], Last::Yes);
        self.wait_until(stream, |answer| answer.body == b"data: 1\n\n");
        stream
    }

    /// Reads the second event and the end of the stream.
    #[track_caller]
    pub fn end_stream(&mut self, stream: u32) {
        let answer = self.wait(stream);
        assert_eq!((answer.text().as_str(), answer.end), ("data: 1\n\ndata: 2\n\n", StreamEnd::Clean));
    }
}
