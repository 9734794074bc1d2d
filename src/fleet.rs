//! The workers that should exist, each in the pool of its model: what the configuration says and what the admin API
//! adds and removes. Every worker is watched while it is here; every change is a new snapshot, which requests in flight
//! don't see.

mod groups;
mod leaving;
mod pools;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::groups::Candidate;
use crate::config::{Config, Policy, Secret, WorkerUrl};
use crate::panics::vital;
use crate::snapshot::{Publisher, Snapshot};
use crate::workers::credentials::Credentials;
use crate::workers::guard::{self, Guard, Refusal};
use crate::workers::names::{self, Resolver};
use crate::workers::policy::Balancer;
use crate::workers::pool::Serves;
use crate::workers::{Health, Worker, health};

/// Time between two looks whether all workers have answered.
const JOIN_LOOK: Duration = Duration::from_millis(5);
/// Workers that the admin API may add.
const MOST_WORKERS: usize = 4096;

/// See the module's documentation. It belongs to the control plane's thread.
pub struct Fleet {
    publisher: Arc<Publisher>,
    resolver: watch::Sender<Rc<Resolver>>,
    /// Marked as changed when workers are to be checked in another way.
    checks: watch::Sender<()>,
    /// The gateway's own addresses.
    own: Arc<[SocketAddr]>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    members: Vec<Rc<Member>>,
    /// Workers that the configuration names and the admin API has removed, with what the configuration says of each:
    /// they stay away until it says something else.
    removed: Vec<(WorkerUrl, About)>,
    /// What is learnt by the policy of each pool that there was.
    balancers: Vec<(Serves, Policy, Balancer)>,
    /// Changes with every change of the members and of their health. It begins anywhere, so that no other process has
    /// the same.
    version: u64,
}

/// A worker, and what is said of it.
pub struct Member {
    pub worker: Arc<Worker>,
    about: RefCell<About>,
    stage: Cell<Stage>,
    origin: Cell<Origin>,
    /// When it was healthy for the first time.
    ready_since: Cell<Option<Instant>>,
    /// Since when it is to leave as soon as another can take its place.
    retiring: Cell<Option<Instant>>,
    /// It retires, and a worker that is to take its place was not ready yet.
    waits: Cell<bool>,
    /// The tasks that follow it; they end with it.
    watch: RefCell<JoinSet<()>>,
}

impl Member {
    pub fn about(&self) -> About {
        self.about.borrow().clone()
    }

    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Gives the worker the key that is said to be its own, or else that of all workers.
    fn renew_credentials(&self, config: &Config) {
        let about = self.about.borrow();
        let key = about.api_key.as_ref().or(config.workers.worker_api_key.as_ref());
        self.worker.set_credentials(Credentials::new(key, config.access.api_key.as_ref()));
    }
}

/// What is said of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// The models that it serves; without any, those that it lists.
    pub models: Vec<String>,
    /// Shown, and kept for who sorts by them.
    pub priority: u32,
    pub cost: f64,
    /// Shown, and bounded by who adds the worker.
    pub labels: BTreeMap<String, String>,
    /// Shown: what the worker runs.
    pub runtime: Option<String>,
    /// What the worker wants to be sent in place of its callers' keys. Never shown.
    pub api_key: Option<Secret>,
}

impl About {
    /// Whether a configuration says the same of the worker, in whichever order. Its key is no more than the way to it.
    fn says_same(&self, other: &Self) -> bool {
        let comparable = |about: &Self| {
            let mut about = Self { api_key: None, ..about.clone() };
            about.models.sort_unstable();
            about.models.dedup();
            about
        };
        comparable(self) == comparable(other)
    }
}

impl Default for About {
    fn default() -> Self {
        let labels = BTreeMap::new();
        Self { models: Vec::new(), priority: 50, cost: 1.0, labels, runtime: None, api_key: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Serving,
    /// It takes nothing new, and is gone when it has finished.
    Draining,
}

/// Who named a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Configuration,
    AdminApi,
}

/// The workers that a configuration names, each once, in however many pools.
fn configured(config: &Config) -> Vec<(WorkerUrl, About)> {
    let of_flags = config.workers.urls().into_iter().map(|url| (url, About::default()));
    let of_file = config.sections.pools.iter().flat_map(|pool| {
        pool.workers.iter().map(|worker| {
            let usual = About::default();
            let about = About {
                models: vec![pool.model.clone()],
                priority: worker.priority.unwrap_or(usual.priority),
                cost: worker.cost.unwrap_or(usual.cost),
                api_key: worker.api_key.clone(),
                ..usual
            };
            (worker.url.clone(), about)
        })
    });
    let mut all: Vec<(WorkerUrl, About)> = Vec::new();
    for (url, about) in of_file.chain(of_flags) {
        match all.iter_mut().find(|(known, _)| *known == url) {
            Some((_, known)) => {
                known.models.extend(about.models);
                known.api_key = known.api_key.take().or(about.api_key);
            }
            None => all.push((url, about)),
        }
    }
    all
}

/// Why a worker can't be added.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("the worker is there already, with the id {0}")]
    Known(String),
    #[error("a worker must not have this address: {0}")]
    Refused(#[from] Refusal),
    #[error("there are {MOST_WORKERS} workers, which is the most there can be")]
    TooMany,
    #[error("the worker is being removed")]
    Draining,
    #[error("there is no worker with this id")]
    Unknown,
}

impl Fleet {
    /// The workers that the configuration names.
    pub fn new(publisher: Arc<Publisher>, resolver: Resolver, own: Arc<[SocketAddr]>) -> Rc<Self> {
        let fleet = Self {
            publisher,
            resolver: watch::Sender::new(Rc::new(resolver)),
            checks: watch::Sender::new(()),
            own,
            state: RefCell::new(State { version: fastrand::u64(..), ..State::default() }),
        };
        let fleet = Rc::new(fleet);
        let config = fleet.config();
        for (url, about) in configured(&config) {
            fleet.join(&config, url, about, Origin::Configuration);
        }
        fleet.publish();
        fleet
    }

    pub fn members(&self) -> Vec<Rc<Member>> {
        self.state.borrow().members.clone()
    }

    pub fn member(&self, id: &str) -> Option<Rc<Member>> {
        let mut found = self.members();
        found.retain(|member| member.worker.id == id);
        // One that leaves and one that has come back have the same id.
        found.sort_by_key(|member| member.stage() == Stage::Draining);
        found.into_iter().next()
    }

    /// Waits until every worker has answered, but no longer than `patience`.
    pub async fn joined(&self, patience: Duration) {
        let start = Instant::now();
        let is_pending = |member: &Rc<Member>| member.worker.health() == Health::Pending;
        while self.members().iter().any(is_pending) && start.elapsed() < patience {
            tokio::time::sleep(JOIN_LOOK).await;
        }
    }

    /// Changes with every change of the members and of their health: both are in the list whose entity tag it is.
    pub fn version(&self) -> u64 {
        self.state.borrow().version
    }

    /// Adds a worker that a caller of the admin API names.
    pub fn add(self: &Rc<Self>, url: WorkerUrl, about: About) -> Result<Rc<Member>, FleetError> {
        let guard = Guard::AdminApi(self.own.clone());
        guard.check_name(url.host())?;
        if let Ok(ip) = url.host().parse() {
            guard.check(SocketAddr::new(ip, url.port()), guard::is_local)?;
        }
        let is_same = |member: &&Rc<Member>| member.worker.url == url && member.stage() == Stage::Serving;
        if let Some(known) = self.members().iter().find(is_same) {
            if known.retiring.take().is_none() {
                return Err(FleetError::Known(known.worker.id.clone()));
            }
            // The configuration gave it up: now it is the caller's.
            known.origin.set(Origin::AdminApi);
            known.about.replace(about);
            self.publish();
            return Ok(known.clone());
        }
        if self.state.borrow().members.len() >= MOST_WORKERS {
            return Err(FleetError::TooMany);
        }
        self.state.borrow_mut().removed.retain(|(removed, _)| *removed != url);
        let member = self.join(&self.config(), url, about, Origin::AdminApi);
        self.publish();
        tracing::info!(worker = %member.worker.label, "the worker is added");
        Ok(member)
    }

    /// Says something else of a worker. What is known of it stays.
    pub fn change(self: &Rc<Self>, id: &str, about: About) -> Result<Rc<Member>, FleetError> {
        let member = self.serving(id)?;
        member.about.replace(about);
        self.publish();
        Ok(member)
    }

    /// Gives a worker nothing new, and lets go of it when it has finished what it has, or after the time that a
    /// shutdown has for that. If the configuration names it, it does not come back before that says something else of it.
    pub fn remove(self: &Rc<Self>, id: &str) -> Result<(), FleetError> {
        match self.serving(id) {
            Ok(leaving) => {
                let named = configured(&self.config()).into_iter().find(|(url, _)| *url == leaving.worker.url);
                self.state.borrow_mut().removed.extend(named);
                self.leave(&leaving, "it was removed over the API");
            }
            Err(FleetError::Draining) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.publish();
        Ok(())
    }

    fn serving(&self, id: &str) -> Result<Rc<Member>, FleetError> {
        let member = self.member(id).ok_or(FleetError::Unknown)?;
        if member.stage() == Stage::Serving { Ok(member) } else { Err(FleetError::Draining) }
    }

    /// Takes over the workers that a new configuration names: new ones join, those that it no longer names leave when
    /// others can take their place, and what the admin API has added or removed stays so. Nothing of it is seen before
    /// [`Fleet::publish`].
    ///
    /// All stand where a restart would put them, because clients (`X-SMG-Target-Worker`) and `passthrough` go by the
    /// position.
    pub fn adopt(self: &Rc<Self>, config: &Config) {
        let mut named = configured(config);
        let order: Vec<_> = named.iter().map(|(url, _)| url.clone()).collect();
        let mut removed = std::mem::take(&mut self.state.borrow_mut().removed);
        let is_same = |(url, about): &(WorkerUrl, About), (other, said): &(WorkerUrl, About)| {
            url == other && about.says_same(said)
        };
        removed.retain(|entry| named.iter().any(|one| is_same(one, entry)));
        named.retain(|entry| !removed.iter().any(|one| is_same(one, entry)));
        self.state.borrow_mut().removed = removed;
        for member in self.members().iter().filter(|member| member.stage() == Stage::Serving) {
            match named.iter().position(|(url, _)| *url == member.worker.url) {
                Some(at) => {
                    let (_, about) = named.remove(at);
                    member.retiring.set(None);
                    if member.origin.get() == Origin::Configuration {
                        member.about.replace(about);
                    }
                }
                None if member.origin.get() == Origin::Configuration => {
                    member.waits.set(false);
                    self.retire(member, config.workers.worker_startup_timeout_secs);
                }
                None => {}
            }
        }
        for (url, about) in named {
            self.join(config, url, about, Origin::Configuration);
        }
        let place = |member: &Rc<Member>| {
            let named = order.iter().position(|url| *url == member.worker.url);
            named.unwrap_or(order.len() + usize::from(member.retiring.get().is_some()))
        };
        self.state.borrow_mut().members.sort_by_cached_key(place);
        for member in self.members() {
            member.worker.renew(&config.breakers);
            if config.workers.disable_health_check {
                member.worker.set_health(Health::Healthy);
            }
        }
    }

    /// Looks all names up with another resolver.
    pub fn resolve_with(&self, resolver: Resolver) {
        self.resolver.send_replace(Rc::new(resolver));
    }

    /// Checks all workers anew, because it is done in another way.
    pub fn check_again(&self) {
        self.checks.send_replace(());
    }

    fn config(&self) -> Arc<Config> {
        self.publisher.current().config.clone()
    }

    fn join(self: &Rc<Self>, config: &Config, url: WorkerUrl, about: About, origin: Origin) -> Rc<Member> {
        let guard = match origin {
            Origin::Configuration => Guard::Operator,
            Origin::AdminApi => Guard::AdminApi(self.own.clone()),
        };
        let health = if config.workers.disable_health_check { Health::Healthy } else { Health::Pending };
        let worker = Arc::new(Worker::new(url, health, config));
        let (fleet, publisher) = (Rc::downgrade(self), self.publisher.clone());
        let settings = move || {
            let snapshot = publisher.current();
            (snapshot.config.clone(), snapshot.connector.clone())
        };
        let changed = move || drop(fleet.upgrade().inspect(|fleet| fleet.publish()));
        let mut watch = JoinSet::new();
        watch.spawn_local(vital(names::follow(worker.clone(), self.resolver.subscribe(), guard)));
        watch.spawn_local(vital(health::watch(worker.clone(), settings, self.checks.subscribe(), changed)));
        let member = Rc::new(Member {
            worker,
            about: RefCell::new(about),
            stage: Cell::new(Stage::Serving),
            origin: Cell::new(origin),
            ready_since: Cell::default(),
            retiring: Cell::default(),
            waits: Cell::default(),
            watch: RefCell::new(watch),
        });
        self.state.borrow_mut().members.push(member.clone());
        member
    }

    /// Publishes the pools as the members and their health are now.
    pub fn publish(self: &Rc<Self>) {
        self.publish_with(|_| {});
    }

    /// The same together with another change.
    pub fn publish_with(self: &Rc<Self>, change: impl FnOnce(&mut Snapshot)) {
        self.publisher.update(|next| {
            change(next);
            let replaced = self.state.borrow().replaced(&next.config);
            replaced.iter().for_each(|(member, reason)| self.leave(member, reason));
            self.state.borrow().members.iter().for_each(|member| member.renew_credentials(&next.config));
            let pools = self.state.borrow_mut().pools(&next.config);
            pools.iter().for_each(|pool| pool.note_panic(&next.pools));
            next.pools = pools;
        });
    }
}

impl State {
    fn candidates(&self) -> Vec<Candidate> {
        let serving = self.members.iter().filter(|member| member.stage() == Stage::Serving);
        let candidate = |member: &Rc<Member>| Candidate {
            worker: member.worker.clone(),
            models: member.about.borrow().models.clone(),
        };
        serving.map(candidate).collect()
    }
}
