//! The modules of the configuration file: all of them take the places of those that it named before, or none does.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::{DeployError, Deployment, Entry, Origin, Registry, check_place, modules, note_removed};
use crate::modules::Module;

/// Why the file's modules are not taken.
#[derive(Debug, thiserror::Error)]
#[error("module {name} of the configuration file ({}): {cause}", .file.display())]
pub struct SectionError {
    pub name: String,
    pub file: PathBuf,
    #[source]
    pub cause: DeployError,
}

/// The file's modules, ready to be published. Nothing else is deployed while it is there.
pub struct Staged<'a> {
    registry: &'a Registry,
    _preparing: MutexGuard<'a, ()>,
    named: Vec<Entry>,
}

impl Registry {
    /// Prepares the modules that the file names, in its order. One that runs already, as it is asked for and with these
    /// very bytes, goes on.
    pub async fn stage(&self, asked: Vec<Deployment>) -> Result<Staged<'_>, SectionError> {
        let preparing = self.preparing.lock().await;
        let (before, mut others): (Vec<_>, Vec<_>) = self.list().into_iter().partition(Entry::is_of_file);
        let first = others.len();
        for (place, asked) in asked.into_iter().enumerate() {
            let (name, file) = (asked.name.clone(), asked.file.clone());
            let known = before.iter().find(|entry| *entry.asked == asked);
            let entry = self.prepare_named(asked, Origin::File(place), known, &others).await;
            others.push(entry.map_err(|cause| {
                self.note_refused();
                SectionError { name, file, cause }
            })?);
        }
        Ok(Staged { registry: self, _preparing: preparing, named: others.split_off(first) })
    }

    async fn prepare_named(
        &self,
        asked: Deployment,
        origin: Origin,
        known: Option<&Entry>,
        others: &[Entry],
    ) -> Result<Entry, DeployError> {
        check_place(others, &asked.name)?;
        let bytes = match (self.read(&asked.file).await, known) {
            (Ok(bytes), Some(known)) if bytes.sha256 == known.module.sha256 => {
                return Ok(Entry { origin, ..known.clone() });
            }
            (Err(error), Some(known)) => {
                let module = crate::telemetry::Untrusted(asked.name.as_bytes());
                tracing::warn!(%module, %error, "the file of a module that runs can't be read any more; it goes on");
                return Ok(Entry { origin, ..known.clone() });
            }
            (read, _) => read?,
        };
        self.prepare(asked, bytes, origin, others).await
    }
}

impl Staged<'_> {
    /// Whether other modules than now will run, or in another order.
    pub fn is_change(&self) -> bool {
        let mut now = self.registry.list();
        now.retain(Entry::is_of_file);
        now.sort_by_key(|entry| entry.origin);
        ids(&now).ne(ids(&self.named))
    }

    /// Puts the modules in their places, and has all that there are then published together.
    pub fn commit(self, publish: impl FnOnce(Vec<Arc<Module>>)) {
        let Self { registry, named, .. } = self;
        let mut entries = registry.entries();
        let (before, others): (Vec<_>, Vec<_>) = entries.drain(..).partition(Entry::is_of_file);
        entries.extend(others.into_iter().chain(named.iter().cloned()));
        entries.sort_by_key(Entry::position);
        publish(modules(&entries));
        drop(entries);
        let without = |all: &[Entry], entry: &&Entry| ids(all).all(|id| id != entry.module.id);
        before.iter().filter(|entry| without(&named, entry)).for_each(note_removed);
        let new = named.iter().filter(|entry| without(&before, entry));
        new.for_each(|entry| registry.note_deployed(&entry.module.name, entry.module.id));
    }
}

fn ids(entries: &[Entry]) -> impl Iterator<Item = Uuid> {
    entries.iter().map(|entry| entry.module.id)
}
