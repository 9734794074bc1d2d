use clap::ValueEnum;

use super::*;

const KEYS: [u64; 4] = [11, 22, 33, 44];

fn balancer(policy: Policy) -> Balancer {
    Balancer::new(policy, &PolicySettings::default()).over(&KEYS)
}

fn counts(policy: Policy, loads: &[f64]) -> Vec<usize> {
    let (balancer, among) = (balancer(policy), (0..loads.len()).collect::<Vec<_>>());
    let mut counts = vec![0; loads.len()];
    for _ in 0..3000 {
        counts[balancer.choose(&Ask::default(), &among, |at| loads[at]).expect("candidates")] += 1;
    }
    counts
}

#[test]
fn round_robin_is_exact() {
    assert_eq!(counts(Policy::RoundRobin, &[9.0, 0.0, 0.0]), [1000, 1000, 1000]);
}

#[test]
fn passthrough_stays_with_the_first() {
    assert_eq!(counts(Policy::Passthrough, &[9.0, 0.0, 0.0]), [3000, 0, 0]);
}

#[test]
fn random_reaches_everyone_whatever_the_load() {
    assert!(counts(Policy::Random, &[9.0, 0.0, 0.0]).iter().all(|count| (800..1200).contains(count)));
}

#[test]
fn power_of_two_never_takes_the_most_loaded_of_three() {
    let counts = counts(Policy::PowerOfTwo, &[9.0, 0.0, 5.0]);
    assert_eq!(counts[0], 0);
    assert!(counts[1] > counts[2] && counts[2] > 500, "{counts:?}");
}

#[test]
fn least_load_takes_the_least_and_shares_among_equals() {
    let counts = counts(Policy::LeastLoad, &[1.0, 0.5, 0.5]);
    assert_eq!(counts[0], 0);
    assert!(counts[1..].iter().all(|count| (1200..1800).contains(count)), "{counts:?}");
}

#[test]
fn without_what_they_look_at_policies_take_the_least_loaded() {
    use Policy::{Bucket, CacheAware, ConsistentHashing, Manual, PrefixHash};
    for policy in [ConsistentHashing, PrefixHash, Manual, Bucket, CacheAware] {
        assert_eq!(counts(policy, &[2.0, 1.0, 2.0])[1], 3000, "{policy:?}");
    }
}

#[test]
fn none_is_chosen_of_none_the_only_one_of_one_and_a_candidate_of_several() {
    for policy in Policy::value_variants() {
        // Positions that the balancer was never told of are a mistake of ours, but no reason to fail a request.
        for balancer in [balancer(*policy), Balancer::new(*policy, &PolicySettings::default())] {
            let ask =
                Ask { routing_key: Some(b"k"), target: Some(1), prompt: Some(&"p".repeat(300)), ..Ask::default() };
            assert_eq!(balancer.choose(&ask, &[], |_| 0.0), None);
            assert_eq!(balancer.choose(&ask, &[7], |_| unreachable!("nothing to compare")), Some(7));
            (0..50).for_each(|_| assert!([0, 2, 9].map(Some).contains(&balancer.choose(&ask, &[0, 2, 9], |_| 1.0))));
        }
    }
}

#[test]
fn a_target_wins_over_the_key_if_it_is_a_candidate() {
    let balancer = balancer(Policy::ConsistentHashing);
    let choose = |target, key: u8, among: &[usize]| {
        balancer
            .choose(&Ask { target, routing_key: Some(&[key]), ..Ask::default() }, among, |_| 0.0)
            .expect("candidates")
    };
    for key in 0..100 {
        let home = choose(None, key, &[0, 1, 2, 3]);
        assert_eq!(choose(Some(99), key, &[0, 1, 2, 3]), home);
        assert_eq!(choose(Some(3), key, &[0, 3]), 3);
        assert_eq!(choose(Some(1), key, &[0, 3]), choose(None, key, &[0, 3]));
    }
}

#[test]
fn alike_prompts_share_a_worker_until_it_is_full_and_then_the_next_one() {
    let balancer = balancer(Policy::PrefixHash);
    let choose = |tail: &str, loads: [f64; 4]| {
        let prompt = "x".repeat(256) + tail;
        balancer.choose(&Ask { prompt: Some(&prompt), ..Ask::default() }, &[0, 1, 2, 3], |at| loads[at]).expect("one")
    };
    let home = choose("", [8.0; 4]);
    (0..50).for_each(|tail| assert_eq!(choose(&tail.to_string(), [8.0; 4]), home));
    // 39 requests and this one are 10 a worker: there is room for 13 with it.
    let loads = |of_home| std::array::from_fn(|at| if at == home { of_home } else { (39.0 - of_home) / 3.0 });
    assert_eq!(choose("", loads(12.0)), home);
    let next = choose("", loads(13.0));
    assert_ne!(next, home);
    (0..50).for_each(|tail| assert_eq!(choose(&tail.to_string(), loads(13.0)), next));
}

#[test]
fn a_routing_key_stays_until_it_is_idle_or_its_worker_is_gone() {
    let first = balancer(Policy::Manual);
    let choose = |balancer: &Balancer, now, among: &[usize], loads: [f64; 4]| {
        let ask = Ask { routing_key: Some(b"session"), now: Duration::from_secs(now), ..Ask::default() };
        balancer.choose(&ask, among, |at| loads[at]).expect("candidates")
    };
    let all = [0, 1, 2, 3];
    assert_eq!(choose(&first, 0, &all, [1.0, 1.0, 0.0, 1.0]), 2);
    assert_eq!(choose(&first, 14_399, &all, [0.0, 1.0, 9.0, 1.0]), 2);
    // The pool changes, and the worker is at another position.
    let second = first.over(&[33, 55, 11, 22]);
    assert_eq!(choose(&second, 28_000, &all, [1.0, 0.0, 1.0, 1.0]), 0);
    // Idle, so it is given anew; then its worker is no candidate, and it does not come back when that does.
    assert_eq!(choose(&second, 42_400, &all, [1.0, 0.0, 1.0, 1.0]), 1);
    assert_eq!(choose(&second, 42_401, &[0, 2, 3], [1.0, 0.0, 1.0, 0.0]), 3);
    assert_eq!(choose(&second, 42_402, &all, [0.0, 0.0, 0.0, 9.0]), 3);
}

#[test]
fn what_was_read_is_known_when_the_pool_changes() {
    let (first, prompt) = (balancer(Policy::CacheAware), "p".repeat(5000));
    let ask = Ask { prompt: Some(&prompt), ..Ask::default() };
    assert_eq!(first.choose(&ask, &[0, 1, 2, 3], |at| if at == 3 { 0.0 } else { 1.0 }), Some(3));
    let second = first.over(&[44, 55, 66]);
    (0..20).for_each(|_| assert_eq!(second.choose(&ask, &[0, 1, 2], |_| 1.0), Some(0)));
}

#[test]
fn only_those_that_look_at_a_prompt_or_a_key_ask_for_it() {
    let names = |needs: fn(&Balancer) -> bool| {
        let all = Policy::value_variants().iter().filter(|policy| needs(&balancer(**policy)));
        all.map(|policy| policy.to_possible_value().expect("shown").get_name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(Balancer::needs_prompt), ["cache_aware", "prefix_hash", "bucket"]);
    assert_eq!(names(Balancer::needs_key), ["manual", "consistent_hashing"]);
}
