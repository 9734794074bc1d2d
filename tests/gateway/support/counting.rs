//! What the hostile guest tells of itself: how often it was called, and what it remembers.

use super::gateway::Gateway;
use super::worker::Worker;

/// What the hostile guest set as `name` on a request that the worker got.
#[track_caller]
pub fn told(gateway: &Gateway, worker: &Worker, behaviour: &str, name: &str) -> String {
    let answer = gateway.provoke(behaviour);
    assert_eq!(answer.status, 200, "{behaviour}: {}", answer.text());
    worker.wait_for_request().headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_owned()
}

#[track_caller]
pub fn count(gateway: &Gateway, worker: &Worker) -> u64 {
    told(gateway, worker, "count", "x-count").parse().expect("a number")
}

/// The counts of `requests` on each of `connections` parallel connections.
pub fn counts(gateway: &Gateway, connections: usize, requests: usize) -> Vec<u64> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.connect();
                    let counted = |_| {
                        client.send_request("GET", "/", &[("X-Answer", "X-Hostile-Response: count")], b"");
                        let answer = client.read_response();
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        answer.headers.get("x-count").expect("a count").parse::<u64>().expect("a number")
                    };
                    (0..requests).map(counted).collect::<Vec<u64>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("no assertion failed")).collect()
    })
}
