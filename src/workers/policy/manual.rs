//! A routing key stays with the worker that it was first given to, which is the least loaded one of then. Without a
//! key, the least loaded.
//!
//! Keys are forgotten when they were idle for too long, or when the table is full, the one that was idle for longest
//! first. When two requests with a new key come at the same instant, the later one decides where the key stays.

use std::time::Duration;

use super::roster::Roster;
use super::table::{Seconds, Table};
use super::{Ask, PolicySettings, hash, least_load};

/// 131,072 keys; some less before the first is pushed out, because sets fill unevenly.
const BYTES: usize = 1 << 20;

pub struct Manual {
    /// By the key's hash.
    given: Table,
    idle: Duration,
}

impl Manual {
    pub fn new(settings: &PolicySettings) -> Self {
        Self { given: Table::new(BYTES), idle: settings.manual_idle }
    }

    /// When the key's worker is no candidate, the key is given to another for good.
    pub fn choose(&self, roster: &Roster, ask: &Ask, among: &[usize], load: &impl Fn(usize) -> f64) -> usize {
        let Some(key) = ask.routing_key else { return least_load::choose(among, load) };
        let (key, now) = (hash::bytes(0, key), Seconds::at(ask.now));
        let known = self.given.holder_within(key, self.idle, now).and_then(|worker| roster.candidate(worker, among));
        let at = known.unwrap_or_else(|| least_load::choose(among, load));
        if let Some(number) = roster.number(at) {
            self.given.assign(key, number, now);
        }
        at
    }
}
