//! Peers that don't keep to the protocol, or to good manners: each ends its own connection at most.

use crate::support::{Agent, Decision, Event, Frames, Proxy, Version, eventually, guest, kind};
use serde_json::json;
use std::time::{Duration, Instant};

/// The longest frames: of version 1, the JSON; of version 2, with the type byte.
const MOST_V1: usize = 10 << 20;
const MOST_V2: usize = 16 << 20;

fn hostile() -> Agent {
    Agent::running(&guest("sentinel-hostile")).arg("--metrics-port=0").start()
}

/// Both versions are served, at once.
#[track_caller]
fn assert_serves(agent: &Agent) {
    for version in Version::BOTH {
        let start = Instant::now();
        assert_eq!(agent.connect(version).ask(&Event::request()).decision, Decision::Allow);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

/// An event as a frame of this length.
fn of_length(version: Version, length: usize) -> Vec<u8> {
    let event = |padding: usize| Event::request().set("padding", json!("x".repeat(padding))).encode(version);
    event(length - event(0).len())
}

#[test]
fn frames_of_impossible_lengths_end_their_connection() {
    let agent = hostile();
    let before: [fn(&Agent) -> Frames; 3] =
        [|agent| agent.frames(), |agent| agent.connect(Version::V1).frames, |agent| agent.connect(Version::V2).frames];
    for connect in before {
        for length in [0, MOST_V2 as u32 + 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let mut frames = connect(&agent);
            frames.write(&length.to_be_bytes()).expect("the socket takes four bytes");
            assert!(frames.ends_within(Duration::from_secs(5)), "{length:#x}");
        }
    }
    eventually(Duration::from_secs(5), || agent.log().contains("a connection was ended"));
    assert_serves(&agent);
}

#[test]
fn what_is_no_frame_at_all_ends_its_connection() {
    let agent = hostile();
    let frame = |content: &[u8]| [&(content.len() as u32).to_be_bytes(), content].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n".to_vec(),
        vec![0xff; 100],
        frame(b"\x16\x03\x01\x02\x00\x01"),
        frame(b"[]"),
        frame(b" {}"),
        frame(b"\xef\xbb\xbf{}"),
        frame(&[0]),
        frame(b"PRI * HTTP/2.0"),
        frame(
            format!("{{\"version\":1,\"event_type\":\"request_headers\",\"payload\":{}", "[".repeat(100_000))
                .as_bytes(),
        ),
        frame(&[&b"{\"a\":"[..], &b"[".repeat(1_000_000)].concat()),
    ] {
        let mut frames = agent.frames();
        frames.write(&bytes).expect("the socket takes them");
        assert!(
            frames.ends_within(Duration::from_secs(5)),
            "{:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
        );
    }
    assert_serves(&agent);
}

#[test]
fn events_that_are_no_json_concern_no_other_event_of_their_connection() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V2);
    for (kind, answered) in [
        (kind::REQUEST, Some(Decision::failed())),
        (kind::RESPONSE, Some(Decision::failed())),
        (kind::CONFIGURE, Some(Decision::Allow)),
        (kind::CANCEL, None),
        (kind::HANDSHAKE, None),
        (0x11, Some(Decision::Allow)),
        (0x77, None),
    ] {
        for payload in [&b""[..], b"nonsense", b"\xff", b"{\"correlation_id\":5}", b"{}{}"] {
            proxy.frames.send(&[&[kind], payload].concat());
            if let Some(decision) = &answered {
                assert_eq!(&proxy.read().decision, decision, "{kind:#x} {:?}", String::from_utf8_lossy(payload));
            }
        }
        assert_eq!(proxy.ask(&Event::request()).decision, Decision::Allow, "after {kind:#x}");
    }
}

#[test]
fn the_longest_frames_are_served_and_longer_ones_are_not() {
    let agent = hostile();
    for (version, most) in [(Version::V1, MOST_V1), (Version::V2, MOST_V2)] {
        let mut proxy = agent.connect(version);
        proxy.frames.send(&of_length(version, most));
        assert_eq!(proxy.read().decision, Decision::Allow, "{version:?}");
        let _ = proxy.frames.try_send(&of_length(version, most + 1));
        assert_eq!(proxy.try_read(), None, "{version:?}");
    }
    assert_serves(&agent);
}

#[test]
fn a_large_head_is_an_event_like_any_other() {
    let agent = hostile();
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        for (count, size) in [(200, 100), (1, 1_000_000), (20_000, 1)] {
            let event = large(count, size);
            let reply = proxy.ask(&event.clone().replying(&json!({ "decision": "block", "status": 418 })));
            assert_eq!(reply.decision, Decision::block(418, None, &[]), "{version:?} {count} of {size}");
        }
        let reply = proxy.ask(&large(40_000, 0));
        assert!([Decision::failed(), Decision::Allow].contains(&reply.decision), "{:?}", reply.decision);
    }
    assert_serves(&agent);
}

#[test]
fn a_tag_and_a_removal_are_no_reason_to_refuse_a_large_head() {
    let agent = hostile();
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        for (count, size) in [(1, 300_000), (600, 1)] {
            for reply in [
                json!({ "decision": "allow", "tags": ["t"] }),
                json!({ "decision": "allow", "add_response_headers": { "x-said": "1" } }),
                json!({ "decision": "allow", "remove_request_headers": ["x-0"] }),
            ] {
                let decision = proxy.ask(&large(count, size).replying(&reply)).decision;
                assert_eq!(decision, Decision::Allow, "{version:?} {count} of {size}: {reply}");
            }
        }
    }
}

/// A request with so many headers of this size.
fn large(count: usize, size: usize) -> Event {
    (0..count).fold(Event::request(), |event, n| event.header(&format!("x-{n}"), &"v".repeat(size)))
}

#[test]
fn who_stops_within_a_frame_or_never_reads_is_left_after_ten_seconds_and_holds_up_nobody() {
    let agent = hostile();
    let start = Instant::now();
    let mut half = [agent.frames(), agent.connect(Version::V1).frames, agent.connect(Version::V2).frames];
    half.iter_mut().for_each(|frames| frames.write(&[0, 0, 0, 9, 1]).expect("the socket takes five bytes"));
    let mut deaf: Vec<Proxy> = Version::BOTH.map(|version| agent.connect(version)).into();
    let loud = json!({ "decision": "block", "body": "b".repeat(60_000) });
    for proxy in &mut deaf {
        let wait = Some(Duration::from_millis(100));
        proxy.frames.stream().set_write_timeout(wait).expect("a timeout above zero");
        // Until the agent takes no more.
        let mut ids = (0..10_000).map(|n| Event::request().id(&n.to_string()).replying(&loud).encode(proxy.version));
        let sent = ids.position(|event| proxy.frames.try_send(&event).is_err()).unwrap_or(10_000);
        assert!(sent < 2000, "{sent} events were taken from one who reads nothing");
    }
    let memory = agent.memory();
    assert_serves(&agent);
    assert!(memory < 300 << 20, "{memory}");
    for frames in &mut half {
        assert!(frames.ends_within(Duration::from_secs(15)));
    }
    let took = start.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(20)).contains(&took), "{took:?}");
    eventually(Duration::from_secs(15), || agent.metrics().sum("smg_agent_connections", &[]) == 0.0);
    assert!(agent.log().contains("did not read"), "{}", agent.log());
    assert_serves(&agent);
}

#[test]
fn who_leaves_within_a_frame_is_no_matter() {
    let agent = hostile();
    for length in [1, 3, 4, 5, 100] {
        for version in Version::BOTH {
            let mut proxy = agent.connect(version);
            let event = Event::request().encode(version);
            let frame = [&(event.len() as u32).to_be_bytes()[..], &event].concat();
            proxy.frames.write(&frame[..length]).expect("the socket takes them");
        }
    }
    eventually(Duration::from_secs(5), || agent.metrics().sum("smg_agent_connections", &[]) == 0.0);
    assert_serves(&agent);
}

#[test]
fn a_frame_may_come_byte_by_byte_and_many_at_once() {
    let agent = hostile();
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        let event = Event::request().encode(version);
        let frame = [&(event.len() as u32).to_be_bytes()[..], &event].concat();
        for byte in &frame {
            proxy.frames.write(&[*byte]).expect("the socket takes a byte");
        }
        assert_eq!(proxy.read().decision, Decision::Allow);
        proxy.frames.write(&frame.repeat(50)).expect("the socket takes them");
        if version == Version::V1 {
            (0..50).for_each(|_| assert_eq!(proxy.read().decision, Decision::Allow));
        } else {
            // Those with the same id supersede each other; the last one is answered.
            assert_eq!(proxy.read().decision, Decision::Allow);
        }
    }
}

#[test]
fn who_will_send_no_more_still_gets_the_answers() {
    let agent = hostile();
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        proxy.send(&Event::request().replying(&json!({ "decision": "block", "status": 418 })));
        proxy.frames.stream().shutdown(std::net::Shutdown::Write).expect("it is connected");
        assert_eq!(proxy.read().decision, Decision::block(418, None, &[]), "{version:?}");
        assert!(proxy.frames.ends_within(Duration::from_secs(5)), "{version:?}");
    }
}

#[test]
fn connections_are_bounded_and_their_places_come_back() {
    let agent = hostile();
    let open: Vec<_> = (0..256).map(|n| agent.connect(Version::BOTH[n % 2])).collect();
    eventually(Duration::from_secs(5), || agent.metrics().sum("smg_agent_connections", &[]) == 256.0);
    for _ in 0..20 {
        assert!(agent.frames().ends_within(Duration::from_secs(5)), "one too many");
    }
    drop(open);
    eventually(Duration::from_secs(5), || agent.metrics().sum("smg_agent_connections", &[]) == 0.0);
    // One of them finds a place again, at the latest.
    eventually(Duration::from_secs(5), || {
        let mut frames = agent.frames();
        frames.try_send(&Event::request().encode(Version::V1)).is_ok() && matches!(frames.read(), Ok(Some(_)))
    });
    assert_serves(&agent);
}

#[test]
fn the_first_connection_after_a_crowd_is_served() {
    let agent = hostile();
    let open: Vec<_> = (0..256).map(|_| agent.frames()).collect();
    eventually(Duration::from_secs(5), || agent.metrics().sum("smg_agent_connections", &[]) == 256.0);
    drop(open);
    eventually(Duration::from_secs(5), || agent.metrics().sum("smg_agent_connections", &[]) == 0.0);
    assert_serves(&agent);
}
