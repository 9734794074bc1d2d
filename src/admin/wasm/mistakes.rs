//! Everything that is wrong with a module of the configuration file. Reading a module stops at its first mistake. Here
//! each wrong value is taken out and the module is read again.

use serde_json::{Map, Value};

use super::{FieldError, of_file};
use crate::config::file::Module;
use crate::modules::Defaults;

/// Nobody reads further.
const MOST: usize = 32;

/// What the admin API would say of a module of the configuration file, but for what only its bytes can tell.
pub fn mistakes(module: &Module, defaults: &Defaults) -> Vec<FieldError> {
    let (mut module, mut found, mut removed) = (module.clone(), Vec::<FieldError>::new(), Removed::default());
    while found.len() < MOST {
        let Err(mut error) = of_file(&module, defaults) else { break };
        let place = error.field.clone();
        error.field = removed.original(&place);
        // A field that lost a part may be incomplete now. That is not a mistake in the file.
        let is_remainder = found.iter().any(|part| is_below(&part.field, &error.field));
        if !is_remainder {
            found.push(error);
        }
        if !removed.take_out(&mut module.fields, &place) {
            break;
        }
    }
    found
}

fn is_below(part: &str, whole: &str) -> bool {
    part.strip_prefix(whole).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// Items that were taken out of lists: the list's path, and the place that the item had at first.
#[derive(Default)]
struct Removed(Vec<(String, usize)>);

impl Removed {
    /// The path that a value had before anything was taken out.
    fn original(&self, path: &str) -> String {
        let Some((list, at, rest)) = item(path) else { return path.to_owned() };
        let mut before: Vec<_> = self.0.iter().filter(|(of, _)| of == list).map(|(_, at)| *at).collect();
        before.sort_unstable();
        let at = before.iter().fold(at, |at, removed| if *removed <= at { at + 1 } else { at });
        format!("{list}[{at}]{rest}")
    }

    /// Whether there was something to take out.
    fn take_out(&mut self, fields: &mut Map<String, Value>, path: &str) -> bool {
        let Some((list, at, _)) = item(path) else { return remove(fields, path).is_some() };
        let original = self.original(&format!("{list}[{at}]"));
        let Some(Value::Array(items)) = find(fields, list) else { return false };
        if at >= items.len() {
            return false;
        }
        items.remove(at);
        if items.is_empty() {
            remove(fields, list);
        }
        self.0.extend(item(&original).map(|(list, at, _)| (list.to_owned(), at)));
        true
    }
}

/// The parts of `list[at]rest`.
fn item(path: &str) -> Option<(&str, usize, &str)> {
    let (list, rest) = path.split_once('[')?;
    let (at, rest) = rest.split_once(']')?;
    Some((list, at.parse().ok()?, rest))
}

fn find<'f>(fields: &'f mut Map<String, Value>, path: &str) -> Option<&'f mut Value> {
    match path.split_once('.') {
        None => fields.get_mut(path),
        Some((key, rest)) => find(fields.get_mut(key)?.as_object_mut()?, rest),
    }
}

/// A key may have a dot itself.
fn remove(fields: &mut Map<String, Value>, path: &str) -> Option<Value> {
    if let Some(value) = fields.remove(path) {
        return Some(value);
    }
    let (key, rest) = path.split_once('.')?;
    remove(fields.get_mut(key)?.as_object_mut()?, rest)
}
