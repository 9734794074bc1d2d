//! A new configuration in place of the one in force: whole or not at all, without a request seeing half of it.

use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::task::JoinSet;

use crate::admin::wasm;
use crate::admission::{Admission, AdmissionSettings};
use crate::config::{Config, Listen, Log};
use crate::fleet::Fleet;
use crate::keys::Keys;
use crate::modules::Module;
use crate::panics::vital;
use crate::rate::Rate;
use crate::registry::{DeployError, Registry, SectionError, Staged};
use crate::routes::Overrides;
use crate::snapshot::Snapshot;
use crate::tls::{self, FileError, KeyPairFiles, ServerTls, ServerTlsError, Site};
use crate::workers::connector::Connector;
use crate::workers::names::{NetError, Resolver};

/// What a reload changes.
pub struct Reload {
    pub fleet: std::rc::Rc<Fleet>,
    /// `None` when modules are not enabled.
    pub registry: Option<Arc<Registry>>,
    pub tls: Arc<ArcSwapOption<ServerTls>>,
    pub admission: Arc<Admission>,
    /// Some listener speaks TLS, and will until a restart.
    pub speaks_tls: bool,
    /// Other users of this machine can connect to a socket with the admin API, and will until a restart.
    pub needs_key: bool,
    pub watches: Watches,
}

/// The tasks that look whether files of certificates change, for those that are in force alone.
#[derive(Default)]
pub struct Watches {
    clients: RefCell<JoinSet<()>>,
    workers: RefCell<JoinSet<()>>,
}

impl Watches {
    /// Of what clients are shown now.
    pub fn follow_clients(&self, tls: Option<&Arc<ServerTls>>) {
        let mut tasks = JoinSet::new();
        if let Some(tls) = tls {
            tasks.spawn_local(vital(tls.clone().watch(tls::WATCH_INTERVAL)));
        }
        self.clients.replace(tasks);
    }

    /// Of what workers are connected to with now.
    pub fn follow_workers(&self, connector: &Connector) {
        let mut tasks = JoinSet::new();
        tasks.spawn_local(vital(connector.tls().clone().watch(tls::WATCH_INTERVAL)));
        self.workers.replace(tasks);
    }
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("certificates for workers: {0}")]
    Connector(#[source] FileError),
    #[error("certificates: {0}")]
    ServerTls(#[from] ServerTlsError),
    #[error("a listener speaks TLS, and no certificate is left")]
    NoCertificate,
    #[error("no key is left, and a socket that was handed over lets other users connect to the admin API")]
    NoKey,
    #[error("names can't be resolved: {0}")]
    Resolver(#[from] NetError),
    #[error(transparent)]
    Module(#[from] SectionError),
}

/// What took effect, and what waits for a restart.
#[derive(Debug, PartialEq, Eq)]
pub struct Reloaded {
    pub changed: Vec<&'static str>,
    pub needs_restart: Vec<&'static str>,
}

impl Reload {
    /// Everything that can fail comes first. Requests in flight keep what they began with.
    ///
    /// Compiling modules takes its time: whoever calls this waits for it, or drops it half-way and nothing has changed,
    /// before calling it again.
    pub async fn apply(&self, before: &Config, mut config: Config) -> Result<Reloaded, ReloadError> {
        let mut reloaded = compare(before, &config);
        let connector = Arc::new(Connector::new(&config).map_err(ReloadError::Connector)?);
        let tls = server_tls(&config)?;
        if self.speaks_tls && tls.is_none() {
            return Err(ReloadError::NoCertificate);
        }
        if self.needs_key && !config.has_keys() {
            return Err(ReloadError::NoKey);
        }
        let differ = |part: fn(&Config) -> String| part(before) != part(&config);
        let resolver = differ(names).then(|| resolver(&config)).transpose()?;
        let staged = match &self.registry {
            Some(registry) => Some(stage(registry, &config).await?),
            None => None,
        };
        match &staged {
            Some(staged) if staged.is_change() => reloaded.changed.push("modules"),
            None if !config.sections.modules.is_empty() => reloaded.needs_restart.push("modules"),
            _ => {}
        }
        let connector = differ(connections).then_some(connector);
        let checks_again = differ(checks) || connector.is_some() || worker_keys_differ(before, &config);
        let shows_others = differ(shown);
        wait_for_restart(before, &mut config);
        let config = Arc::new(config);
        self.admission.set(admission_settings(&config));
        if shows_others {
            self.watches.follow_clients(tls.as_ref());
            self.tls.store(tls);
        }
        connector.iter().for_each(|connector| self.watches.follow_workers(connector));
        self.fleet.adopt(&config);
        let publish = |modules: Option<Vec<Arc<Module>>>| {
            self.fleet.publish_with(|next| {
                renew(next, config);
                next.connector = connector.unwrap_or_else(|| next.connector.clone());
                next.modules = modules.unwrap_or_else(|| std::mem::take(&mut next.modules));
            });
        };
        match staged {
            Some(staged) => staged.commit(|modules| publish(Some(modules))),
            None => publish(None),
        }
        resolver.into_iter().for_each(|resolver| self.fleet.resolve_with(resolver));
        if checks_again {
            self.fleet.check_again();
        }
        Ok(reloaded)
    }
}

/// What names of workers are resolved with.
fn names(config: &Config) -> String {
    format!("{:?}", config.workers.dns_servers)
}

/// What connections to workers are made with.
fn connections(config: &Config) -> String {
    let (workers, tls) = (&config.workers, &config.tls);
    let identity = (&tls.client_cert_path, &tls.client_key_path);
    format!("{:?}", (workers.connect_timeout_secs, &tls.ca_cert_paths, identity, tls.upstream_http2))
}

/// What clients are shown.
fn shown(config: &Config) -> String {
    format!("{:?}", (&config.tls.tls_cert_path, &config.tls.tls_key_path, &config.sections.certificates))
}

/// How workers are checked, and which.
fn checks(config: &Config) -> String {
    format!("{:?}", config.workers)
}

/// Whether workers may be sent other keys. Keys don't print, so that what prints alike may differ in them.
fn worker_keys_differ(before: &Config, after: &Config) -> bool {
    before.workers.worker_api_key != after.workers.worker_api_key
        || before.access.api_key != after.access.api_key
        || before.sections.pools != after.sections.pools
}

/// Where the gateway listens, and what it speaks there.
fn listens(config: &Config) -> String {
    let listen = Listen {
        shutdown_grace_period_secs: Default::default(),
        drain_delay_secs: Default::default(),
        ..config.listen.clone()
    };
    format!("{:?}", (listen, config.tls.tls_cert_path.is_some(), &config.sections.listeners))
}

/// Puts back what only a restart changes: whoever reads it finds what is in force, and the next reload says again what
/// waits.
fn wait_for_restart(before: &Config, config: &mut Config) {
    let Listen { shutdown_grace_period_secs, drain_delay_secs, .. } = config.listen;
    config.listen = Listen { shutdown_grace_period_secs, drain_delay_secs, ..before.listen.clone() };
    config.sections.listeners.clone_from(&before.sections.listeners);
    config.wasm.clone_from(&before.wasm);
    let log_level = std::mem::take(&mut config.log.log_level);
    config.log = Log { log_level, ..before.log.clone() };
    config.traces.clone_from(&before.traces);
}

/// What follows from a configuration alone; what it says as before goes on.
fn renew(next: &mut Snapshot, config: Arc<Config>) {
    next.keys = Arc::new(Keys::new(&config, Some(&next.keys)));
    if next.config.sections.routes != config.sections.routes {
        next.overrides = Arc::new(Overrides::new(&config.sections.routes));
    }
    let limit = |config: &Config| config.admission.rate_limit_tokens_per_second;
    if limit(&next.config) != limit(&config) {
        next.rate = rate(&config);
    }
    next.config = config;
}

/// Prepares the modules that the file names.
pub async fn stage<'a>(registry: &'a Registry, config: &Config) -> Result<Staged<'a>, SectionError> {
    let asked = config.sections.modules.iter().map(|module| {
        wasm::of_file(module, registry.defaults()).map_err(|error| SectionError {
            name: module.name.clone(),
            file: module.file.clone(),
            cause: DeployError::Field(error.to_string()),
        })
    });
    registry.stage(asked.collect::<Result<_, _>>()?).await
}

/// A part of a configuration, and what it says, to be compared.
type Part = (&'static str, fn(&Config) -> String);

/// What differs, by the names that users know; but for modules, of which their files are a part.
fn compare(before: &Config, after: &Config) -> Reloaded {
    let differ = |of: fn(&Config) -> String| of(before) != of(after);
    let parts: [Part; 15] = [
        ("workers", |config| format!("{:?}", config.workers)),
        ("pools", |config| format!("{:?}", config.sections.pools)),
        ("routes", |config| format!("{:?}", config.sections.routes)),
        ("retries", |config| format!("{:?}", config.retries)),
        ("breakers", |config| format!("{:?}", config.breakers)),
        ("limits", |config| format!("{:?}", config.limits)),
        ("admission", |config| format!("{:?}", config.admission)),
        ("cors", |config| format!("{:?}", config.access.cors_allowed_origins)),
        ("tls", |config| format!("{:?}{:?}", config.tls, config.sections.certificates)),
        ("shutdown", |config| {
            format!("{:?}", (config.listen.shutdown_grace_period_secs, config.listen.drain_delay_secs))
        }),
        ("listen", listens),
        ("wasm", |config| format!("{:?}", config.wasm)),
        ("log_level", |config| config.log.log_level.clone()),
        ("log", |config| format!("{:?}", Log { log_level: String::new(), ..config.log.clone() })),
        ("traces", |config| format!("{:?}", config.traces)),
    ];
    let mut all: Vec<_> = parts.iter().filter(|(_, of)| differ(*of)).map(|(name, _)| *name).collect();
    let same_keys = before.access.api_key == after.access.api_key
        && before.access.admin_key == after.access.admin_key
        && before.sections.keys == after.sections.keys;
    if !same_keys {
        all.push("keys");
    }
    let same_worker_keys = before.workers.worker_api_key == after.workers.worker_api_key
        && (before.sections.pools == after.sections.pools || all.contains(&"pools"));
    if !same_worker_keys {
        all.push("worker_keys");
    }
    let (needs_restart, changed) = all.into_iter().partition(|name| ["listen", "wasm", "log", "traces"].contains(name));
    Reloaded { changed, needs_restart }
}

/// The certificates that clients are shown.
pub fn server_tls(config: &Config) -> Result<Option<Arc<ServerTls>>, ServerTlsError> {
    let of_flags = config.tls.tls_cert_path.clone().zip(config.tls.tls_key_path.clone());
    let of_flags = of_flags.map(|(chain, key)| Site { files: KeyPairFiles { chain, key }, names: Vec::new() });
    let of_file = config.sections.certificates.iter().map(|certificate| Site {
        files: KeyPairFiles { chain: certificate.cert.clone(), key: certificate.key.clone() },
        names: certificate.hosts.clone(),
    });
    let mut sites: Vec<_> = of_flags.into_iter().chain(of_file).collect();
    // The first is shown where no other fits.
    sites.sort_by_key(|site| !site.names.is_empty());
    if sites.is_empty() { Ok(None) } else { Ok(Some(Arc::new(ServerTls::new(sites)?))) }
}

/// What asks for the addresses of workers.
pub fn resolver(config: &Config) -> Result<Resolver, NetError> {
    let servers: Vec<_> = config.workers.dns_servers.iter().map(|server| server.0).collect();
    Resolver::new(&servers)
}

/// The limit on requests in flight.
pub fn admission_settings(config: &Config) -> AdmissionSettings {
    AdmissionSettings { limit: config.admission.limit(cores()), queue: config.admission.queue_size }
}

/// The limit on requests per second.
pub fn rate(config: &Config) -> Option<Arc<Rate>> {
    config.admission.rate_limit_tokens_per_second.map(|rate| Arc::new(Rate::per_second(rate)))
}

pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_says_what_it_changes_and_what_it_can_not() {
        let before = Config::of(&["--api-key=a"]);
        let mut after =
            Config::of(&["--api-key=b", "--port=1", "--request-timeout-secs=5", "--otlp-endpoint=http://c"]);
        let reloaded = compare(&before, &after);
        assert_eq!(reloaded.changed, ["limits", "keys"]);
        assert_eq!(reloaded.needs_restart, ["listen", "traces"]);
        let asked = after.clone();
        wait_for_restart(&before, &mut after);
        assert!(compare(&before, &after).needs_restart.is_empty(), "that is not in force");
        assert_eq!(compare(&after, &asked).needs_restart, ["listen", "traces"], "and is said again");
        for (flags, changed, needs_restart) in [
            (&["--shutdown-grace-period-secs=1"][..], "shutdown", ""),
            (&["--drain-delay-secs=1"], "shutdown", ""),
            (&["--cb-failure-threshold=1"], "breakers", ""),
            (&["--tls-cert-path=a", "--tls-key-path=b"], "tls", "listen"),
            (&["--log-level=debug"], "log_level", ""),
            (&["--log-level=debug", "--log-json"], "log_level", "log"),
        ] {
            let reloaded = compare(&Config::of(&[]), &Config::of(flags));
            assert_eq!((&*reloaded.changed.concat(), &*reloaded.needs_restart.concat()), (changed, needs_restart));
        }
        let keyed = Config::of(&["--api-key=a", "--worker-api-key=a"]);
        assert_eq!(compare(&keyed, &Config::of(&["--api-key=a", "--worker-api-key=b"])).changed, ["worker_keys"]);
        let same = compare(&before, &Config::of(&["--api-key=a"]));
        assert_eq!((same.changed.len(), same.needs_restart.len()), (0, 0));
    }
}
