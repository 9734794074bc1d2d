//! The keys of workers in `pools`: in the file itself, in an environment variable, or in a file of its own, as
//! orchestrators mount secrets. They are read when the configuration is.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path as FilePath;

use super::keys::{Environment, secret_in};
use super::node::{Node, Value};
use super::pools::{Pool, PoolWorker};
use super::problem::{Problem, Report};
use super::section::Item;
use crate::config::{Secret, WorkerUrl};

/// Bytes of the largest file with a key.
const LARGEST: u64 = 16 * 1024;

/// Puts the key of each worker where the file says that it is.
pub(super) fn read(pools: &mut [Item<'_, Pool>], environment: Environment<'_>, report: &mut Report) {
    for pool in pools.iter_mut() {
        let nodes = match pool.node.get("workers") {
            Some(Node { value: Value::List(nodes), .. }) => nodes.as_slice(),
            _ => &[],
        };
        for (at, (worker, node)) in pool.value.workers.iter_mut().zip(nodes).enumerate() {
            match key_of(worker, environment) {
                Ok(key) => worker.api_key = key,
                Err((field, fault)) => {
                    let line = node.get(field).map_or(node.line, |node| node.line);
                    let path = format_args!("pools[{}].workers[{at}].{field}", pool.index);
                    match fault {
                        Fault::Unset => report.unset(line, path),
                        Fault::Value(text) => report.add(Problem::new(line, path, text)),
                    }
                }
            }
        }
    }
    // A worker is one, in however many pools it is.
    let mut known: HashMap<&WorkerUrl, &Secret> = HashMap::new();
    for pool in pools.iter() {
        for worker in &pool.value.workers {
            let Some(key) = &worker.api_key else { continue };
            if *known.entry(&worker.url).or_insert(key) != key {
                let path = format_args!("pools[{}].workers", pool.index);
                let line = pool.node.get("workers").map_or(pool.node.line, |node| node.line);
                report.add(Problem::new(
                    line,
                    path,
                    format_args!("{} has a different key in an earlier pool", worker.url),
                ));
            }
        }
    }
}

/// Why there is no key.
enum Fault {
    /// The environment variable is not set.
    Unset,
    /// What is wrong with the field.
    Value(String),
}

/// The key, or the field with a mistake and what it is.
fn key_of(worker: &PoolWorker, environment: Environment<'_>) -> Result<Option<Secret>, (&'static str, Fault)> {
    match (&worker.api_key, &worker.api_key_env, &worker.api_key_file) {
        (key, None, None) => Ok(key.clone()),
        (None, Some(variable), None) => match secret_in(environment, variable) {
            Ok(Some(key)) => Ok(Some(key)),
            Ok(None) => Err(("api_key_env", Fault::Unset)),
            Err(why) => Err(("api_key_env", Fault::Value(why.to_owned()))),
        },
        (None, None, Some(file)) => secret_of_file(file).map(Some).map_err(|why| ("api_key_file", Fault::Value(why))),
        _ => {
            let text = "only one of api_key, api_key_env and api_key_file may be set";
            Err(("api_key", Fault::Value(text.to_owned())))
        }
    }
}

/// A key and white space around it. The path is not repeated in errors: some write the key itself there.
fn secret_of_file(path: &FilePath) -> Result<Secret, String> {
    let unreadable = |error: std::io::Error| format!("the file can't be read: {error}");
    let mut text = Vec::new();
    // A pipe that nobody writes to would hold up the start for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut text)).map_err(unreadable)?;
    let text = str::from_utf8(&text).map_err(|_| "the file does not hold UTF-8 text".to_owned())?;
    text.trim().parse().map_err(|why| format!("the file does not hold a valid key: {why}"))
}
