//! A new configuration in place of the one in force: whole or not at all, without a request seeing half of it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::admin::wasm;
use crate::admission::{Admission, AdmissionSettings};
use crate::config::Config;
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

/// What a reload changes.
pub struct Reload {
    pub fleet: std::rc::Rc<Fleet>,
    /// `None` when modules are not enabled.
    pub registry: Option<Arc<Registry>>,
    pub tls: Arc<ArcSwapOption<ServerTls>>,
    pub admission: Arc<Admission>,
    /// Some listener speaks TLS, and will until a restart.
    pub speaks_tls: bool,
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
    pub async fn apply(&self, before: &Config, config: Config) -> Result<Reloaded, ReloadError> {
        let mut reloaded = compare(before, &config);
        let connector = Arc::new(Connector::new(&config).map_err(ReloadError::Connector)?);
        let tls = server_tls(&config)?;
        if self.speaks_tls && tls.is_none() {
            return Err(ReloadError::NoCertificate);
        }
        let staged = match &self.registry {
            Some(registry) => Some(stage(registry, &config).await?),
            None => None,
        };
        match &staged {
            Some(staged) if staged.is_change() => reloaded.changed.push("modules"),
            None if !config.sections.modules.is_empty() => reloaded.needs_restart.push("modules"),
            _ => {}
        }
        let config = Arc::new(config);
        self.admission.set(admission_settings(&config));
        let connector = reloaded.changed.contains(&"tls").then(|| {
            self.take_over(tls, &connector);
            connector
        });
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
        Ok(reloaded)
    }

    /// Shows clients and workers other certificates.
    fn take_over(&self, tls: Option<Arc<ServerTls>>, connector: &Arc<Connector>) {
        if let Some(tls) = &tls {
            tokio::task::spawn_local(vital(tls.clone().watch(tls::WATCH_INTERVAL)));
        }
        self.tls.store(tls);
        tokio::task::spawn_local(vital(connector.tls().clone().watch(tls::WATCH_INTERVAL)));
    }
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
    let parts: [Part; 12] = [
        ("workers", |config| format!("{:?}", config.workers)),
        ("pools", |config| format!("{:?}", config.sections.pools)),
        ("routes", |config| format!("{:?}", config.sections.routes)),
        ("retries", |config| format!("{:?}", config.retries)),
        ("limits", |config| format!("{:?}", config.limits)),
        ("admission", |config| format!("{:?}", config.admission)),
        ("cors", |config| format!("{:?}", config.access.cors_allowed_origins)),
        ("tls", |config| format!("{:?}{:?}", config.tls, config.sections.certificates)),
        ("listen", |config| format!("{:?}{:?}", config.listen, config.sections.listeners)),
        ("wasm", |config| format!("{:?}", config.wasm)),
        ("log", |config| format!("{:?}", config.log)),
        ("traces", |config| format!("{:?}", config.traces)),
    ];
    let mut all: Vec<_> = parts.iter().filter(|(_, of)| differ(*of)).map(|(name, _)| *name).collect();
    let is_same = |a: &Option<crate::config::Secret>, b: &Option<crate::config::Secret>| {
        a.as_ref().map(|key| key.expose()) == b.as_ref().map(|key| key.expose())
    };
    let same_keys = is_same(&before.access.api_key, &after.access.api_key)
        && is_same(&before.access.admin_key, &after.access.admin_key)
        && before.sections.keys == after.sections.keys;
    if !same_keys {
        all.push("keys");
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
        let after = Config::of(&["--api-key=b", "--port=1", "--request-timeout-secs=5", "--otlp-endpoint=http://c"]);
        let reloaded = compare(&before, &after);
        assert_eq!(reloaded.changed, ["limits", "keys"]);
        assert_eq!(reloaded.needs_restart, ["listen", "traces"]);
        let same = compare(&before, &Config::of(&["--api-key=a"]));
        assert_eq!((same.changed.len(), same.needs_restart.len()), (0, 0));
    }
}
