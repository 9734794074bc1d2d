//! Uploads on one HTTP/2 connection that nobody reads for now (case 59): each waits for itself alone, and what they make
//! the gateway keep is bounded.

use crate::support::{Frame, Gate, Gateway, H2, Last, RawH2, Worker, flood};
use flood::{endure, head, nth};
use std::time::Duration;

const MIB: usize = 1 << 20;

/// What may be open at once, and what each stream may send before it is read.
fn bounds(client: &H2) -> (usize, usize) {
    let value = |id| client.setting(id).expect("the gateway says it") as usize;
    (value(Frame::MAX_CONCURRENT_STREAMS), value(Frame::INITIAL_WINDOW_SIZE))
}

#[test]
fn uploads_that_wait_for_a_place_hold_up_no_other() {
    let worker = Worker::echo();
    let places = ["--max-concurrent-requests=1", "--queue-size=200"];
    let gateway = Gateway::builder().worker(&worker).args(places).start();
    let mut client = H2::connect(&gateway);
    let (most, window) = bounds(&client);
    let first = client.start("POST", "/", &[], Last::No);
    let waiting: Vec<_> = (1..most).map(|_| client.start("POST", "/", &[], Last::No)).collect();
    let full = vec![b'x'; window];
    waiting.iter().for_each(|stream| client.data(*stream, &full, Last::No));
    client.data(first, &[b'x'; 2 * MIB], Last::Yes);
    assert_eq!(client.wait(first).json()["body_length"], 2 * MIB);
    for stream in waiting {
        client.data(stream, b"end", Last::Yes);
        assert_eq!(client.wait(stream).json()["body_length"], window + 3);
    }
}

#[test]
fn uploads_that_their_workers_do_not_take_are_bounded() {
    let finish = Gate::new();
    let wait = finish.clone();
    let worker = Worker::on_head_with_little_room(move |request, conn| match request.target.as_str() {
        "/fine" => conn.answer(200, "fine"),
        _ => wait.wait_within(Duration::from_secs(30)),
    });
    // What small frames cost beside their bytes is not in the windows.
    for size in [16_384, 256] {
        let gateway = Gateway::before(&worker);
        let (most, window) = bounds(&H2::connect(&gateway));
        endure(&gateway, || {
            let (mut raw, _) = RawH2::open(gateway.address, &[]);
            let piece = Frame::new(Frame::DATA, 0, 0, vec![b'x'; size]);
            for stream in (0..most as u32).map(nth) {
                raw.send(&Frame::headers(stream, 0, head("/stuck")));
                let pieces = Frame { stream, ..piece.clone() }.encode().repeat(window / size);
                raw.write(pieces).expect("it is within the windows");
            }
            assert!(raw.is_alive(), "all has come");
        });
    }
    finish.open();
}
