//! The workers that can serve a request, with one balancing policy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;

use super::policy::{Ask, Balancer};
use super::{Health, Lease, Worker};
use crate::config::TargetError;

/// Which models a pool serves: one, with its other names, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serves {
    model: Option<Box<str>>,
    aliases: Box<[String]>,
    /// The workers know it by its first name only.
    renames: bool,
}

impl Serves {
    pub fn new(model: Option<&str>, aliases: &[String]) -> Self {
        Self { model: model.map(Into::into), aliases: aliases.into(), renames: false }
    }

    /// A model that the workers know by its first name only.
    pub fn renaming(model: &str, aliases: &[String]) -> Self {
        Self { renames: !aliases.is_empty(), ..Self::new(Some(model), aliases) }
    }

    /// Whether requests may name the model in a way that the workers don't know.
    pub fn renames(&self) -> bool {
        self.renames
    }

    /// The name that the workers know the model by, if this is one that they don't.
    pub fn own_name(&self, named: &str) -> Option<&str> {
        let is_alias = self.renames && self.aliases.iter().any(|alias| alias == named);
        self.model.as_deref().filter(|_| is_alias)
    }

    pub fn all(&self) -> bool {
        self.model.is_none()
    }

    /// The name of the model for metrics and logs, `*` for all.
    pub fn label(&self) -> &str {
        self.model.as_deref().unwrap_or("*")
    }

    pub fn model(&self, model: &str) -> bool {
        self.model.as_deref() == Some(model) || self.aliases.iter().any(|alias| alias == model)
    }
}

/// See the module's documentation.
pub struct Pool {
    pub serves: Serves,
    /// All of them, as configured.
    pub all: Vec<Arc<Worker>>,
    /// Positions in `all` of those that are used: the healthy ones; if there is none, those that take connections; if there
    /// is none of these either, those that refuse them.
    healthy: Vec<usize>,
    is_in_panic: bool,
    /// They take connections.
    can_serve: bool,
    /// Some of them list other models than others.
    lists_differ: bool,
    /// Some of them have a base path, and so can't be asked for every target.
    has_base_paths: bool,
    balancer: Balancer,
    /// Time in which a worker that comes back gets its full share.
    slow_start: Duration,
}

impl Pool {
    /// The pool as the workers' health is now. `balancer` is that of the pool before it, or a new one.
    pub fn new(serves: Serves, all: Vec<Arc<Worker>>, balancer: &Balancer, slow_start: Duration) -> Self {
        let with = |health| (0..all.len()).filter(|at| all[*at].health() == health).collect::<Vec<_>>();
        let mut healthy = with(Health::Healthy);
        let mut is_in_panic = false;
        if healthy.is_empty() {
            healthy = with(Health::Failing);
            is_in_panic = !healthy.is_empty();
        }
        let can_serve = !healthy.is_empty();
        if !can_serve {
            healthy = with(Health::Refusing);
        }
        let keys: Vec<_> = all.iter().map(|worker| worker.key).collect();
        let lists: Vec<_> = all.iter().map(|worker| worker.models()).filter(|models| !models.is_empty()).collect();
        let lists_differ = lists.windows(2).any(|two| two[0] != two[1]);
        let has_base_paths = all.iter().any(|worker| worker.url.has_base_path());
        let balancer = balancer.over(&keys);
        Self { serves, all, healthy, is_in_panic, can_serve, lists_differ, has_base_paths, balancer, slow_start }
    }

    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// No worker passes its checks, and those that take connections are used all the same: checks that fail
    /// everywhere say more about the checks, or the load, than about the workers.
    pub fn is_in_panic(&self) -> bool {
        self.is_in_panic
    }

    /// All workers that served are gone, and those that refuse connections are tried all the same: one that restarts is
    /// back before a request's retries are used up. The pool does not count as able to serve.
    pub fn is_refusing(&self) -> bool {
        !self.can_serve && !self.healthy.is_empty()
    }

    /// Whether some of its workers take connections and serve, in panic or not.
    pub fn can_serve(&self) -> bool {
        self.can_serve
    }

    /// Says if panic has begun or ended since `before`, the pools that there were.
    pub fn note_panic(&self, before: &[Arc<Pool>]) {
        let was_in_panic = before.iter().any(|old| old.serves == self.serves && old.is_in_panic);
        let model = self.serves.label();
        match (was_in_panic, self.is_in_panic) {
            (false, true) => tracing::warn!(model, "no worker passes its checks: those that take connections are used"),
            (true, false) => tracing::info!(model, "only workers that pass their checks are used again"),
            _ => {}
        }
    }

    /// Workers that are used: the healthy ones, or else others, see [`Pool::is_in_panic`] and [`Pool::is_refusing`].
    pub fn healthy_count(&self) -> usize {
        self.healthy.len()
    }

    /// The same workers, as positions in `all`.
    pub fn healthy_positions(&self) -> &[usize] {
        &self.healthy
    }

    /// The same workers.
    pub fn healthy(&self) -> impl Iterator<Item = &Arc<Worker>> {
        self.healthy.iter().map(|at| &self.all[*at])
    }

    /// Whether there is a choice that depends on a request's model: not all of the workers list the same ones.
    pub fn lists_differ(&self) -> bool {
        self.lists_differ
    }

    /// Why none of the workers, healthy or not, can be asked for a target. `None` if one can, or if there is none.
    pub fn target_error(&self, target: &Uri) -> Option<TargetError> {
        if !self.has_base_paths {
            return None;
        }
        let errors: Option<Vec<_>> = self.all.iter().map(|worker| worker.url.check(target).err()).collect();
        errors?.first().copied()
    }

    /// Positions of the workers that are used and can be asked for a target; `None` if that is each of those that are
    /// used.
    pub fn able(&self, target: &Uri) -> Option<Vec<usize>> {
        if !self.has_base_paths {
            return None;
        }
        let is_able = |at: &usize| self.all[*at].url.check(target).is_ok();
        let able: Vec<_> = self.healthy.iter().copied().filter(is_able).collect();
        (able.len() < self.healthy.len()).then_some(able)
    }

    /// Whether [`Pool::able`] can leave any worker out.
    pub fn has_base_paths(&self) -> bool {
        self.has_base_paths
    }

    /// The worker at this position and no other, unless it is not healthy or is left alone.
    pub fn pick_only(&self, at: usize, now: Instant) -> Option<Lease> {
        if self.healthy.contains(&at) { Lease::take(&self.all[at], at, now) } else { None }
    }

    /// Whether there is a choice that depends on a request's prompt.
    pub fn wants_prompt(&self) -> bool {
        self.healthy.len() > 1 && self.balancer.needs_prompt()
    }

    /// Whether the routing fields of requests are looked at.
    pub fn wants_key(&self) -> bool {
        self.healthy.len() > 1 && self.balancer.needs_key()
    }

    /// Picks a healthy worker that is not left alone, and none of those at the positions in `avoid` if another is left.
    pub fn pick(&self, ask: &Ask, avoid: &[usize], now: Instant) -> Option<Lease> {
        if avoid.is_empty()
            && let Some(at) = self.choose(ask, &self.healthy)
            && !self.is_cold(at, now)
            && let Some(lease) = Lease::take(&self.all[at], at, now)
        {
            return Some(lease);
        }
        let admitting = self.admitting(now);
        let others: Vec<_> = admitting.iter().copied().filter(|at| !avoid.contains(at)).collect();
        self.pick_among(ask, if others.is_empty() { admitting } else { others }, now)
    }

    /// The same, and none of those in `avoid` in any case.
    pub fn pick_another(&self, ask: &Ask, avoid: &[usize], now: Instant) -> Option<Lease> {
        let mut others = self.admitting(now);
        others.retain(|at| !avoid.contains(at));
        self.pick_among(ask, others, now)
    }

    /// Positions of those that are not left alone.
    fn admitting(&self, now: Instant) -> Vec<usize> {
        self.healthy.iter().copied().filter(|at| self.all[*at].breaker.could_admit(now)).collect()
    }

    fn pick_among(&self, ask: &Ask, mut candidates: Vec<usize>, now: Instant) -> Option<Lease> {
        while let Some(at) = self.choose(ask, &candidates) {
            let passed_over = candidates.len() > 1 && self.is_cold(at, now);
            if !passed_over && let Some(lease) = Lease::take(&self.all[at], at, now) {
                return Some(lease);
            }
            candidates.retain(|candidate| *candidate != at);
        }
        None
    }

    fn choose(&self, ask: &Ask, among: &[usize]) -> Option<usize> {
        self.balancer.choose(ask, among, |at| self.all[at].in_flight() as f64)
    }

    /// Whether this request passes over a worker that warms up.
    fn is_cold(&self, at: usize, now: Instant) -> bool {
        let weight = self.all[at].warmup.weight(now, self.slow_start);
        weight < 1.0 && fastrand::f64() > weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Policy};
    use crate::workers::breaker::Outcome;

    fn pool(healths: &[Health], policy: Policy) -> Pool {
        let config = Config::of(&[]);
        let worker = |(at, health): (usize, &Health)| {
            Arc::new(Worker::new(format!("http://w{at}:1").parse().expect("a URL"), *health, &config))
        };
        let all = healths.iter().enumerate().map(worker).collect();
        let balancer = Balancer::new(policy, &Default::default());
        Pool::new(Serves::new(None, &[]), all, &balancer, config.workers.slow_start_secs)
    }

    fn pick(pool: &Pool, avoid: &[usize]) -> Option<Lease> {
        pool.pick(&Ask::default(), avoid, Instant::now())
    }

    #[test]
    fn only_healthy_workers_are_picked_and_the_lease_counts() {
        let pool = pool(&[Health::Pending, Health::Healthy, Health::Failing], Policy::LeastLoad);
        let lease = pick(&pool, &[]).expect("one is healthy");
        assert_eq!((lease.position, pool.all[1].in_flight()), (1, 1));
        drop(lease);
        assert_eq!(pool.all[1].in_flight(), 0);
        assert!(pick(&pool, &[1]).is_some(), "there is no other");
        let another = |avoid: &[usize]| pool.pick_another(&Ask::default(), avoid, Instant::now());
        assert!(another(&[1]).is_none() && another(&[0]).is_some());
    }

    #[test]
    fn only_workers_that_can_be_asked_for_the_target_are_able() {
        let config = Config::of(&[]);
        let of = |urls: &[&str]| {
            let worker = |url: &&str| Arc::new(Worker::new(url.parse().expect("a URL"), Health::Healthy, &config));
            let balancer = Balancer::new(Policy::RoundRobin, &Default::default());
            Pool::new(Serves::new(None, &[]), urls.iter().map(worker).collect(), &balancer, Duration::ZERO)
        };
        let (dots, outside) = (Some(TargetError::DotSegment), Some(TargetError::OutsideVersion));
        for (urls, target, able, error) in [
            (&["http://a", "http://b"][..], "/..", None, None),
            (&["http://a/x", "http://b", "http://c/v1"], "/..", Some(&[1][..]), None),
            (&["http://a/x", "http://b", "http://c/v1"], "/y", Some(&[0, 1]), None),
            (&["http://a/x", "http://b", "http://c/v1"], "/v1/y", None, None),
            (&["http://a/x", "http://b/v1"], "/..", Some(&[]), dots),
            (&["http://a/v1"], "/y", Some(&[]), outside),
        ] {
            let (pool, target) = (of(urls), target.parse().expect("a target"));
            assert_eq!((pool.able(&target).as_deref(), pool.target_error(&target)), (able, error), "{urls:?} {target}");
        }
    }

    #[test]
    fn without_a_healthy_worker_those_that_take_connections_are_used_or_else_those_that_refuse_them() {
        use Health::{Failing, Healthy, Pending, Refusing, Unreachable};
        for (healths, used, is_in_panic, can_serve) in [
            (&[Failing, Healthy, Unreachable, Refusing][..], &[1][..], false, true),
            (&[Failing, Pending, Unreachable, Failing, Refusing], &[0, 3], true, true),
            (&[Pending, Unreachable, Refusing], &[2], false, false),
            (&[Unreachable, Pending], &[], false, false),
            (&[], &[], false, false),
        ] {
            let pool = pool(healths, Policy::RoundRobin);
            assert_eq!((&pool.healthy[..], pool.is_in_panic()), (used, is_in_panic), "{healths:?}");
            assert_eq!(pool.can_serve(), can_serve, "{healths:?}");
            let picked = (0..8).filter_map(|_| pick(&pool, &[])).all(|lease| used.contains(&lease.position));
            assert!(picked, "{healths:?}");
        }
    }

    #[test]
    fn one_worker_can_be_asked_for() {
        let pool = pool(&[Health::Healthy, Health::Failing, Health::Healthy], Policy::Passthrough);
        assert_eq!(pool.healthy_positions(), [0, 2]);
        let only = |at| pool.pick_only(at, Instant::now()).map(|lease| lease.position);
        assert_eq!([0, 1, 2, 3].map(only), [Some(0), None, Some(2), None]);
    }

    #[test]
    fn a_worker_that_fails_is_left_alone_and_others_are_picked() {
        let pool = pool(&[Health::Healthy, Health::Healthy], Policy::Passthrough);
        for _ in 0..10 {
            let mut lease = pick(&pool, &[]).expect("one is healthy");
            assert_eq!(lease.position, 0);
            lease.ended(Outcome::Failed);
        }
        assert_eq!(pick(&pool, &[]).map(|lease| lease.position), Some(1));
        assert_eq!(pick(&pool, &[1]).map(|lease| lease.position), Some(1), "there is no other");
    }

    #[test]
    fn a_worker_that_comes_back_gets_a_small_share_at_first() {
        let pool = pool(&[Health::Healthy, Health::Healthy], Policy::RoundRobin);
        pool.all[0].set_health(Health::Unreachable);
        pool.all[0].set_health(Health::Healthy);
        let first = (0..1000).filter(|_| pick(&pool, &[]).expect("one is healthy").position == 0).count();
        assert!((1..200).contains(&first), "{first}");
    }
}
