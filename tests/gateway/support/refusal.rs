//! Tables of bad requests: each must be refused, and the worker must never see anything of it.

use super::gateway::Gateway;
use super::worker::Worker;
use std::time::Duration;

/// Bytes that are no acceptable request, and how they may be answered.
pub struct BadRequest {
    what: String,
    bytes: Vec<u8>,
    statuses: Vec<u16>,
    then: Then,
}

/// What must become of the connection.
#[derive(PartialEq)]
enum Then {
    Closes,
    MayGoOn,
}

/// A bad request after which the connection must close; `statuses` are the ones it may be answered with.
pub fn bad(what: &str, bytes: impl AsRef<[u8]>, statuses: &[u16]) -> BadRequest {
    BadRequest {
        what: what.to_owned(),
        bytes: bytes.as_ref().to_vec(),
        statuses: statuses.to_vec(),
        then: Then::Closes,
    }
}

impl BadRequest {
    /// The request's end is certain, so the connection may serve another one.
    pub fn connection_may_go_on(mut self) -> Self {
        self.then = Then::MayGoOn;
        self
    }

    fn complaint(&self, gateway: &Gateway) -> Option<String> {
        let mut client = gateway.connect();
        let _ = client.try_send(&self.bytes);
        let answer = match client.try_read_head("GET") {
            Ok(Some(response)) => format!("answered {}", response.status),
            Ok(None) => "closed without an answer".to_owned(),
            Err(e) => format!("no answer: {e}"),
        };
        if !self.statuses.iter().any(|status| answer == format!("answered {status}")) {
            return Some(format!("{}: {answer}, wanted {:?}", self.what, self.statuses));
        }
        let lingers = self.then == Then::Closes && !client.ends_within(Duration::from_secs(3));
        lingers.then(|| format!("{}: the connection stays open", self.what))
    }
}

/// Sends each case on a connection of its own, reports every one that is not refused as it must be, and asserts
/// that the worker got no whole request of any.
#[track_caller]
pub fn refuses(gateway: &Gateway, worker: &Worker, cases: &[BadRequest]) {
    let mut complaints: Vec<String> = cases.iter().filter_map(|case| case.complaint(gateway)).collect();
    assert_eq!(gateway.get("/after-the-bad-ones").status, 200, "the gateway goes on serving");
    let seen = worker.requests().into_iter().filter(|r| r.target != "/after-the-bad-ones");
    complaints.extend(seen.map(|r| format!("the worker got {:?} with body {:?}", r.head, r.body)));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
