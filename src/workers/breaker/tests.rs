use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> (Breaker, Instant) {
    let breaker = Breaker::new(Some(BreakerSettings::default()));
    let start = breaker.base;
    (breaker, start)
}

/// A breaker that has just opened.
fn opened(outcome: Outcome) -> (Breaker, Instant) {
    let (breaker, start) = breaker();
    let changes: Vec<_> = (0..10).map(|_| breaker.report(Ticket::Normal, outcome, start)).collect();
    assert_eq!((&changes[..9], changes[9]), (&[None; 9][..], Some(Change::Opened)));
    (breaker, start)
}

fn trial(breaker: &Breaker, now: Instant) -> Option<Ticket> {
    let could = breaker.could_admit(now);
    let ticket = breaker.admit(now);
    assert_eq!(could, ticket.is_some());
    assert_ne!(ticket, Some(Ticket::Normal));
    ticket
}

#[test]
fn it_opens_waits_tries_a_few_and_closes() {
    let (breaker, start) = opened(Outcome::Failed);
    assert_eq!((breaker.state(start), trial(&breaker, start + 59 * SECOND)), (State::Open, None));
    let now = start + 60 * SECOND;
    assert_eq!(breaker.state(now), State::HalfOpen);
    let trials = [(); 3].map(|()| trial(&breaker, now).expect("three at a time"));
    assert_eq!(trial(&breaker, now), None);
    assert_eq!(breaker.report(trials[0], Outcome::Unknown, now), None);
    let fourth = trial(&breaker, now).expect("the place of the one that left");
    assert_eq!(breaker.report(Ticket::Normal, Outcome::Failed, now), None, "sent before it opened");
    let changes = [trials[1], trials[2], fourth].map(|ticket| breaker.report(ticket, Outcome::Succeeded, now));
    assert_eq!(changes, [None, None, Some(Change::Closed)]);
    assert_eq!((breaker.state(now), breaker.admit(now)), (State::Closed, Some(Ticket::Normal)));
}

#[test]
fn one_failed_trial_opens_it_for_the_same_time_again() {
    let (breaker, mut now) = opened(Outcome::Failed);
    for _ in 0..5 {
        now += 60 * SECOND;
        let [first, second] = [(); 2].map(|()| trial(&breaker, now).expect("a trial"));
        assert_eq!(breaker.report(first, Outcome::Failed, now), Some(Change::Opened));
        assert_eq!(breaker.report(second, Outcome::Failed, now + SECOND), None);
        assert_eq!(trial(&breaker, now + 59 * SECOND), None);
    }
}

#[test]
fn only_failures_in_a_row_and_within_the_window_count() {
    let (breaker, start) = breaker();
    for round in 0..5 {
        (0..9).for_each(|_| assert_eq!(breaker.report(Ticket::Normal, Outcome::Failed, start), None));
        assert_eq!(breaker.report(Ticket::Normal, Outcome::Unknown, start), None, "round {round}");
        assert_eq!(breaker.report(Ticket::Normal, Outcome::Succeeded, start), None);
    }
    let fail = |second| breaker.report(Ticket::Normal, Outcome::Failed, start + second * SECOND);
    assert!((0..9).all(|second| fail(second).is_none()));
    assert_eq!(fail(121), None, "the first is too old: a new row");
    assert!((122..130).all(|second| fail(second).is_none()));
    assert_eq!(fail(130), Some(Change::Opened));
}

#[test]
fn trials_that_never_come_back_make_room_after_the_timeout() {
    let (breaker, start) = opened(Outcome::Failed);
    let lost = [(); 3].map(|()| trial(&breaker, start + 60 * SECOND).expect("a trial"));
    assert_eq!(trial(&breaker, start + 120 * SECOND), None);
    let now = start + 121 * SECOND;
    let second_round = [(); 3].map(|()| trial(&breaker, now).expect("a second round"));
    assert_eq!(trial(&breaker, now), None);
    assert_eq!(breaker.report(lost[0], Outcome::Failed, now), None, "of a round that is over");
    assert_eq!(trial(&breaker, now), None, "its place went with its round");
    let changes = [lost[1], lost[2], second_round[0]].map(|ticket| breaker.report(ticket, Outcome::Succeeded, now));
    assert_eq!(changes, [None, None, Some(Change::Closed)], "a late success is one");
}

#[test]
fn a_passed_check_lets_trials_begin_if_the_worker_was_not_reachable() {
    let (failing, start) = opened(Outcome::Failed);
    assert_eq!((failing.check_passed(start), trial(&failing, start + SECOND)), (None, None));
    let (gone, start) = opened(Outcome::Unreachable);
    assert_eq!(gone.check_passed(start + SECOND), Some(Change::HalfOpened));
    let ticket = trial(&gone, start + SECOND).expect("a trial");
    assert_eq!(gone.report(ticket, Outcome::Failed, start + SECOND), Some(Change::Opened));
    assert_eq!(gone.check_passed(start + 2 * SECOND), None, "it is there, and fails");
}

#[test]
fn without_settings_it_never_opens() {
    let breaker = Breaker::new(None);
    let now = breaker.base;
    assert!((0..100).all(|_| breaker.report(Ticket::Normal, Outcome::Failed, now).is_none()));
    assert_eq!((breaker.admit(now), breaker.state(now)), (Some(Ticket::Normal), State::Closed));
}

#[test]
fn a_working_worker_s_requests_write_nothing() {
    let (breaker, now) = breaker();
    let before = breaker.word.load(Relaxed);
    let step = |phase: Phase| {
        let after = phase.after(Ticket::Normal, Outcome::Succeeded, 7, &BreakerSettings::default());
        assert_eq!(after, phase, "what is not changed is not written");
        after
    };
    assert_eq!((breaker.change(step), breaker.word.load(Relaxed)), (None, before));
    assert_eq!(breaker.admit(now), Some(Ticket::Normal));
}

#[test]
fn the_word_holds_every_phase_to_its_bounds() {
    let far = milliseconds(Duration::MAX);
    for phase in [
        Phase::CLOSED,
        Phase::Closed { failures: phase::MOST_FAILURES, since: far },
        Phase::Open { until: far, cause: phase::Cause::Failed },
        Phase::Open { until: 0, cause: phase::Cause::Unreachable },
        Phase::HalfOpen { since: far, trials: phase::MOST_TRIALS, successes: 0 },
        Phase::HalfOpen { since: 1, trials: 0, successes: phase::MOST_TRIALS },
    ] {
        assert_eq!(Phase::decode(phase.encode()), phase);
    }
    let wild = BreakerSettings {
        failure_threshold: 0,
        success_threshold: u32::MAX,
        timeout: Duration::MAX,
        window: Duration::MAX,
    };
    let breaker = Breaker::new(Some(wild));
    let now = breaker.base;
    assert_eq!(breaker.report(Ticket::Normal, Outcome::Unreachable, now), Some(Change::Opened));
    assert_eq!(breaker.check_passed(now), Some(Change::HalfOpened));
    assert_eq!((0..5000).filter(|_| breaker.admit(now).is_some()).count(), 2047);
}

#[test]
fn threads_together_open_it_once_and_never_exceed_the_trials() {
    let (breaker, start) = opened(Outcome::Failed);
    let together = std::sync::Barrier::new(3);
    for round in 1..500 {
        let now = start + round * 61 * SECOND;
        let admit = || {
            together.wait();
            (0..20).filter_map(|_| breaker.admit(now)).collect::<Vec<_>>()
        };
        let tickets: Vec<_> = std::thread::scope(|scope| {
            let threads = [(); 3].map(|()| scope.spawn(admit));
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(tickets.len(), 3);
        let changes: Vec<_> = std::thread::scope(|scope| {
            let fail = |ticket: Ticket| {
                let breaker = &breaker;
                scope.spawn(move || breaker.report(ticket, Outcome::Failed, now))
            };
            let threads: Vec<_> = tickets.iter().map(|ticket| fail(*ticket)).collect();
            threads.into_iter().filter_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(changes, [Change::Opened]);
    }
}

#[test]
fn statuses_that_speak_against_a_worker() {
    let verdict = |code| verdict_of_status(StatusCode::from_u16(code).expect("a status"));
    assert!([408, 500, 502, 503, 504].iter().all(|code| verdict(*code) == Outcome::Failed));
    assert!([200, 204, 302, 400, 401, 404, 422, 501, 505].iter().all(|code| verdict(*code) == Outcome::Succeeded));
    assert_eq!(verdict(429), Outcome::Unknown);
}
