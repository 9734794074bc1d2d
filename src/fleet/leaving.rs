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
    pub(super) fn leave(self: &Rc<Self>, leaving: &Rc<Member>, reason: &str) {
        let leaving = leaving.clone();
        leaving.stage.set(Stage::Draining);
        leaving.watch.take();
        tracing::info!(worker = %leaving.worker.label, reason, "the worker is drained");
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
                fleet.leave(&member, "no worker in its place was ready in time");
                fleet.publish();
            }
        });
    }
}

impl State {
    /// Notes which workers have become ready, and finds those that need not wait any longer for others to take their
    /// place; with the reason.
    pub(super) fn replaced(&self, config: &Config) -> Vec<(Rc<Member>, &'static str)> {
        let serving = || self.members.iter().filter(|member| member.stage() == Stage::Serving);
        for member in serving().filter(|member| member.worker.health() == Health::Healthy) {
            member.ready_since.set(member.ready_since.get().or(Some(Instant::now())));
        }
        let mut retiring = serving().filter_map(|member| Some((member, member.retiring.get()?))).peekable();
        if retiring.peek().is_none() {
            return Vec::new();
        }
        let groups = groups(&config.sections.pools, config.workers.policy, &self.candidates());
        let done = |(member, since): (&Rc<Member>, Instant)| {
            let successors = serving().filter(|other| {
                other.retiring.get().is_none() && other.ready_since.get().is_none_or(|ready| ready >= since)
            });
            let reason = reason_to_leave(member, &successors.collect::<Vec<_>>(), &groups)?;
            Some((member.clone(), reason))
        };
        retiring.filter_map(done).collect()
    }
}

/// Why a worker that retires need not serve any longer; `None` if it must. Its health is no reason: a worker that restarts
/// is back before the one in its place is ready.
fn reason_to_leave(member: &Member, successors: &[&Rc<Member>], groups: &[Group]) -> Option<&'static str> {
    if member.ready_since.get().is_none() {
        return Some("it was never ready");
    }
    let has = |group: &Group, of: &Member| group.workers.iter().any(|worker| Arc::ptr_eq(worker, &of.worker));
    let health = |of: &Member| of.worker.health();
    let is_ready = |group: &Group| successors.iter().any(|it| has(group, it) && health(it) == Health::Healthy);
    // Which models a worker lists is known when it has answered.
    let may_join = |group: &Group, it: &Member| has(group, it) || it.about.borrow().models.is_empty();
    let is_pending = |group: &Group| successors.iter().any(|it| health(it) == Health::Pending && may_join(group, it));
    let own = groups.iter().filter(|group| has(group, member));
    let (ready, unready): (Vec<_>, Vec<_>) = own.partition(|group| is_ready(group));
    if unready.iter().any(|group| is_pending(group)) {
        member.waits.set(true);
        return None;
    }
    match () {
        () if !ready.is_empty() => Some("a worker in its place is ready"),
        // The one that was to take its place was removed before it was ready: this one serves until its time is over.
        () if member.waits.get() => None,
        () => Some("no worker comes in its place"),
    }
}
