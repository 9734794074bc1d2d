//! The pools of a snapshot, made of the workers as they are now.

use std::sync::Arc;
use std::time::Duration;

use super::State;
use super::groups::{Group, groups};
use crate::config::Config;
use crate::workers::policy::{Balancer, PolicySettings};
use crate::workers::pool::Pool;

impl State {
    pub(super) fn pools(&mut self, config: &Config) -> Vec<Arc<Pool>> {
        self.version = self.version.wrapping_add(1);
        let groups = groups(&config.sections.pools, config.workers.policy, &self.candidates());
        let slow_start = config.workers.slow_start_secs;
        let pools: Vec<_> = groups.into_iter().map(|group| self.pool(group, slow_start)).collect();
        // What was learnt of models that nobody serves any more is forgotten.
        self.balancers.retain(|(of, ..)| pools.iter().any(|pool| pool.serves == *of));
        pools
    }

    /// What its policy has learnt stays as long as the policy does.
    fn pool(&mut self, group: Group, slow_start: Duration) -> Arc<Pool> {
        let Group { serves, policy, workers } = group;
        let known = self.balancers.iter().position(|(of, with, _)| *of == serves && *with == policy);
        let at = known.unwrap_or_else(|| {
            self.balancers.retain(|(of, ..)| *of != serves);
            self.balancers.push((serves.clone(), policy, Balancer::new(policy, &PolicySettings::default())));
            self.balancers.len() - 1
        });
        let pool = Pool::new(serves, workers, &self.balancers[at].2, slow_start);
        self.balancers[at].2 = pool.balancer().clone();
        Arc::new(pool)
    }
}
