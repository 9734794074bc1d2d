use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::*;

/// Counts how often it was woken, and unparks its thread.
struct Bell(Thread, AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, SeqCst);
        self.0.unpark();
    }
}

fn bell() -> Arc<Bell> {
    Arc::new(Bell(thread::current(), AtomicU32::new(0)))
}

fn poll(wait: &mut Wait, bell: &Arc<Bell>) -> Poll<Permit> {
    pin!(wait).poll(&mut Context::from_waker(&Waker::from(bell.clone())))
}

/// Waits as a task would: looks again only when woken. A minute without is a lost wake-up.
fn block_on(mut wait: Wait) -> Permit {
    let bell = bell();
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        if let Poll::Ready(permit) = poll(&mut wait, &bell) {
            return permit;
        }
        while bell.1.swap(0, SeqCst) == 0 {
            assert!(Instant::now() < patience, "a wake-up got lost");
            thread::park_timeout(Duration::from_secs(1));
        }
    }
}

fn admission(limit: u32, queue: u32) -> Arc<Admission> {
    Admission::new(AdmissionSettings { limit, queue })
}

fn permit(admission: &Arc<Admission>) -> Permit {
    admission.try_enter().expect("a permit")
}

fn queued(admission: &Arc<Admission>) -> Wait {
    match admission.enter(&AdmissionCounts::default()) {
        Ok(Entry::Queued(wait)) => wait,
        Ok(Entry::Admitted(_)) => panic!("admitted"),
        Err(error) => panic!("{error}"),
    }
}

fn numbers(admission: &Admission) -> (u32, u32) {
    assert_eq!(admission.lock().waiters.len(), admission.waiting() as usize);
    (admission.in_flight(), admission.waiting())
}

#[test]
fn the_first_to_wait_is_the_first_served_and_a_full_queue_refuses() {
    let (admission, counts) = (admission(2, 2), AdmissionCounts::default());
    let (one, two) = (permit(&admission), permit(&admission));
    let (mut first, mut second) = (queued(&admission), queued(&admission));
    assert_eq!(admission.enter(&counts).err(), Some(AdmissionError::QueueFull));
    assert_eq!((numbers(&admission), counts.queue_full.get()), ((2, 2), 1));
    let bells = [bell(), bell()];
    assert!(poll(&mut first, &bells[0]).is_pending() && poll(&mut second, &bells[1]).is_pending());
    drop(one);
    assert_eq!(bells.each_ref().map(|bell| bell.1.load(SeqCst)), [1, 0]);
    assert!(admission.try_enter().is_none(), "nobody gets past the queue");
    assert_eq!(numbers(&admission), (2, 1));
    let Poll::Ready(third) = poll(&mut first, &bells[0]) else { panic!("it was given a permit") };
    assert!(poll(&mut first, &bells[0]).is_pending() && poll(&mut second, &bells[1]).is_pending());
    drop((two, third));
    assert!(poll(&mut second, &bells[1]).is_ready(), "and given back at once");
    assert_eq!((numbers(&admission), bells[1].1.load(SeqCst)), ((0, 0), 1));
}

#[test]
fn whoever_leaves_is_passed_over_and_gives_back_what_it_was_given() {
    let admission = admission(1, 9);
    let held = permit(&admission);
    let (first, second, mut third, fourth) =
        (queued(&admission), queued(&admission), queued(&admission), queued(&admission));
    drop(first);
    assert_eq!(numbers(&admission), (1, 3));
    let bell = bell();
    assert!(poll(&mut third, &bell).is_pending());
    drop(held);
    assert_eq!(numbers(&admission), (1, 2), "the second has it without having been polled");
    drop(second);
    assert_eq!((numbers(&admission), bell.1.load(SeqCst)), ((1, 1), 1));
    drop((third, fourth));
    assert_eq!(numbers(&admission), (0, 0));
}

#[test]
fn a_permit_that_comes_with_the_end_of_the_time_is_not_lost() {
    let (admission, counts) = (admission(1, 9), AdmissionCounts::default());
    let held = permit(&admission);
    let (late, lucky) = (queued(&admission), queued(&admission));
    assert_eq!(late.time_out(&counts).err(), Some(AdmissionError::QueueTimeout));
    drop(held);
    let permit = lucky.time_out(&counts).expect("it has a permit");
    assert_eq!((numbers(&admission), counts.queue_timeout.get()), ((1, 0), 1));
    drop(permit);
    assert_eq!(numbers(&admission), (0, 0));
}

#[test]
fn a_new_limit_holds_at_once_and_takes_nothing_away() {
    let admission = admission(2, 4);
    let permits = [permit(&admission), permit(&admission)];
    let waits = [(); 4].map(|()| queued(&admission));
    admission.set(AdmissionSettings { limit: 4, queue: 1 });
    assert_eq!(numbers(&admission), (4, 2));
    assert_eq!(admission.enter(&AdmissionCounts::default()).err(), Some(AdmissionError::QueueFull));
    admission.set(AdmissionSettings { limit: 1, queue: 9 });
    drop(permits);
    assert_eq!(numbers(&admission), (2, 2), "more than the new limit: nobody is next yet");
    drop(waits);
    assert_eq!(numbers(&admission), (0, 0));
    admission.set(AdmissionSettings { limit: 0, queue: 0 });
    assert!(admission.try_enter().is_none());
}

#[test]
fn a_waker_that_drops_a_permit_comes_back_without_a_deadlock() {
    struct Owner(Mutex<Option<Permit>>);
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().expect("not poisoned").take());
        }
    }
    let admission = admission(2, 9);
    let (held, other) = (permit(&admission), permit(&admission));
    let (mut first, second) = (queued(&admission), queued(&admission));
    let waker = Waker::from(Arc::new(Owner(Mutex::new(Some(held)))));
    assert!(pin!(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert!(poll(&mut first, &bell()).is_pending(), "the old waker goes, and its permit with it");
    assert_eq!(numbers(&admission), (2, 1));
    drop((first, second, other));
    assert_eq!(numbers(&admission), (0, 0));
}

#[test]
fn nobody_gets_past_the_queue_between_the_two_steps_of_a_release() {
    let admission = admission(1, 9);
    let held = permit(&admission);
    let (mut first, bell) = (queued(&admission), bell());
    assert!(poll(&mut first, &bell).is_pending());
    std::mem::forget(held);
    admission.word.fetch_sub(ONE_IN_FLIGHT, SeqCst);
    assert!(admission.try_enter().is_none());
    let second = queued(&admission);
    admission.hand_over();
    assert_eq!((numbers(&admission), bell.1.load(SeqCst)), ((1, 1), 1));
    drop((first, second));
    assert_eq!(numbers(&admission), (0, 0));
}

/// Many threads enter, hold, wait, leave and run out of time at random, while the limits may change.
#[test]
fn nothing_is_lost_or_given_twice_whatever_races() {
    [false, true].into_iter().for_each(race);
}

const MOST: u32 = 3;
const VISITS: u64 = 10_000;

fn race(limits_change: bool) {
    let admission = admission(MOST, 4);
    let held = [(); MOST as usize].map(|()| permit(&admission));
    let holders = AtomicI64::new(0);
    let run = || {
        let counts = AdmissionCounts::default();
        // All are held: the first four wait until the test's own thread gives them back.
        match admission.enter(&counts) {
            Ok(Entry::Admitted(permit)) => hold(permit, &holders),
            Ok(Entry::Queued(wait)) => hold(block_on(wait), &holders),
            Err(error) => assert_eq!(error, AdmissionError::QueueFull),
        }
        (1..VISITS).for_each(|_| visit(&admission, &counts, &holders));
        (counts.at_once.get() + counts.queued.get() + counts.queue_full.get(), counts.queued.get())
    };
    let totals = thread::scope(|scope| {
        let threads = [(); 6].map(|()| scope.spawn(run));
        while admission.waiting() < 4 && !threads.iter().any(|thread| thread.is_finished()) {
            thread::yield_now();
        }
        drop(held);
        while limits_change && !threads.iter().all(|thread| thread.is_finished()) {
            admission.set(AdmissionSettings { limit: fastrand::u32(1..=MOST), queue: fastrand::u32(..6) });
            thread::yield_now();
        }
        threads.map(|thread| thread.join().expect("no panic"))
    });
    assert!(totals.iter().all(|(all, _)| *all == VISITS), "{totals:?}");
    assert!(totals.iter().map(|(_, queued)| queued).sum::<u64>() >= 4, "{totals:?}");
    assert_eq!((numbers(&admission), Arc::strong_count(&admission)), ((0, 0), 1));
}

fn visit(admission: &Arc<Admission>, counts: &AdmissionCounts, holders: &AtomicI64) {
    let mut wait = match admission.enter(counts) {
        Ok(Entry::Admitted(permit)) => return hold(permit, holders),
        Ok(Entry::Queued(wait)) => wait,
        Err(error) => return assert_eq!(error, AdmissionError::QueueFull),
    };
    match fastrand::u8(..8) {
        0 => drop(wait),
        1 => {
            if let Poll::Ready(permit) = poll(&mut wait, &bell()) {
                hold(permit, holders);
            }
        }
        2 => {
            thread::yield_now();
            wait.time_out(counts).map_or_else(|_| (), |permit| hold(permit, holders));
        }
        _ => hold(block_on(wait), holders),
    }
}

/// Gives the processor away now and then, so that others come while all permits are held.
fn hold(permit: Permit, holders: &AtomicI64) {
    let now = holders.fetch_add(1, SeqCst) + 1;
    assert!(now <= i64::from(MOST), "{now} hold a permit");
    if fastrand::u8(..16) == 0 {
        thread::sleep(Duration::from_micros(1));
    }
    holders.fetch_sub(1, SeqCst);
    drop(permit);
}

#[test]
fn what_travels_between_threads_may() {
    fn is_send<T: Send>() {}
    is_send::<(Permit, Wait, Arc<Admission>)>();
}

#[test]
fn when_to_come_back() {
    assert_eq!([0.0, 0.5, 1.0].map(|random| retry_after(99, 10.0, random)), [10, 13, 15]);
    assert_eq!(retry_after(0, 1000.0, 0.0), 1);
    assert_eq!(retry_after(u32::MAX, 0.001, 1.0), 30);
    assert_eq!([0.0, -1.0, f64::NAN].map(|rate| retry_after(5, rate, 0.0)), [5, 5, 5]);
}
