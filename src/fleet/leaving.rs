//! Workers that leave. Those that a configuration no longer names do so at once, unless others come in their place
//! that have not answered yet: then they serve until one of those does, so that no request is left without a worker.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_local;

use super::groups::{Group, groups};
use super::{Fleet, Member, Stage, State};
use crate::config::Config;
use crate::workers::Health;

/// Time between two looks whether a worker that leaves is done.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

impl Fleet {
    /// The worker gets nothing new, and is forgotten when it has finished.
    pub(super) fn leave(self: &Rc<Self>, leaving: &Rc<Member>) {
        let leaving = leaving.clone();
        leaving.stage.set(Stage::Draining);
        leaving.watch.take();
        tracing::info!(worker = %leaving.worker.label, "the worker is drained");
        let (fleet, grace) = (self.clone(), self.config().listen.shutdown_grace_period_secs);
        spawn_local(async move {
            let start = Instant::now();
            while leaving.worker.in_flight() > 0 && start.elapsed() < grace {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            fleet.state.borrow_mut().members.retain(|member| !Rc::ptr_eq(member, &leaving));
            fleet.publish();
            tracing::info!(worker = %leaving.worker.label, "the worker is removed");
        });
    }

    /// The worker is to leave when another can take its place, or after `limit`. Whether one can is found out with
    /// each publication.
    pub(super) fn retire(self: &Rc<Self>, member: &Rc<Member>, limit: Duration) {
        if member.retiring.get().is_some() {
            return;
        }
        let since = Instant::now();
        member.retiring.set(Some(since));
        let (fleet, member) = (self.clone(), member.clone());
        spawn_local(async move {
            let is_waiting = || member.stage() == Stage::Serving && member.retiring.get() == Some(since);
            if is_waiting() {
                tracing::info!(worker = %member.worker.label, "the worker leaves when one in its place is ready");
                tokio::time::sleep(limit).await;
            }
            if is_waiting() {
                let seconds = limit.as_secs_f64();
                tracing::warn!(worker = %member.worker.label, seconds, "no worker in its place was ready in time");
                fleet.leave(&member);
                fleet.publish();
            }
        });
    }
}

impl State {
    /// Notes which workers have become ready, and finds those that need not wait any longer for others to take their
    /// place.
    pub(super) fn replaced(&self, config: &Config) -> Vec<Rc<Member>> {
        let serving = || self.members.iter().filter(|member| member.stage() == Stage::Serving);
        for member in serving().filter(|member| member.worker.health() == Health::Healthy) {
            member.ready_since.set(member.ready_since.get().or(Some(Instant::now())));
        }
        let mut retiring = serving().filter_map(|member| Some((member, member.retiring.get()?))).peekable();
        if retiring.peek().is_none() {
            return Vec::new();
        }
        let groups = groups(&config.sections.pools, config.workers.policy, &self.candidates());
        let is_done = |(member, since): &(&Rc<Member>, Instant)| {
            let successors = serving().filter(|other| {
                other.retiring.get().is_none() && other.ready_since.get().is_none_or(|ready| ready >= *since)
            });
            !waits(member, &successors.collect::<Vec<_>>(), &groups)
        };
        retiring.filter(is_done).map(|(member, _)| member.clone()).collect()
    }
}

/// Whether a worker must still serve: in one of its pools none of those that have come since is ready, and one may be.
fn waits(member: &Rc<Member>, successors: &[&Rc<Member>], groups: &[Group]) -> bool {
    let health = |of: &Rc<Member>| of.worker.health();
    if !matches!(health(member), Health::Healthy | Health::Failing) {
        return false;
    }
    let has = |group: &Group, of: &Rc<Member>| group.workers.iter().any(|worker| Arc::ptr_eq(worker, &of.worker));
    groups.iter().filter(|group| has(group, member)).any(|group| {
        let is_ready = successors.iter().any(|other| has(group, other) && health(other) == Health::Healthy);
        // Which models a worker lists is known when it has answered.
        let may_join = |other: &Rc<Member>| has(group, other) || other.about.borrow().models.is_empty();
        !is_ready && successors.iter().any(|other| health(other) == Health::Pending && may_join(other))
    })
}
