//! The files in `config/` are right, and the full one says every flag with its default.
//!
//! In them a comment begins with `# ` and a word; a setting that has no default is commented out as `#key: value`.

use clap::Arg;

use super::super::flags::{Known, key_of, takes_many};
use super::super::node::{Node, Value};
use super::super::problem::Report;
use super::super::{LARGEST, SECTIONS};
use super::{good, understood};

const MINIMAL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/minimal.yaml"));
const FULL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/full.yaml"));

/// The file with every commented setting switched on.
fn switched_on(text: &str) -> String {
    let switch = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !is_comment(line) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(switch).collect()
}

fn is_comment(line: &str) -> bool {
    line.strip_prefix("# ").is_some_and(|rest| !rest.starts_with(' ')) || line == "#"
}

/// What the full file should say of a flag.
fn snippet(flag: &Arg, key: &str) -> String {
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.split(" [default:").next().unwrap_or_default();
    let defaults: Vec<String> = flag.get_default_values().iter().map(|value| value.to_string_lossy().into()).collect();
    match defaults.as_slice() {
        [] if matches!(flag.get_action(), clap::ArgAction::SetTrue) => format!("# {help}\n{key}: false\n"),
        [] => format!("# {help}\n#{key}: \n"),
        [one] if !takes_many(flag) => format!("# {help}\n{key}: {one}\n"),
        many => format!("# {help}\n{key}: [{}]\n", many.join(", ")),
    }
}

fn values(node: &Node) -> Vec<String> {
    let nodes = match &node.value {
        Value::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(node),
    };
    nodes.iter().map(|node| node.text().unwrap_or_default().to_owned()).collect()
}

#[test]
fn both_files_are_right_and_so_is_what_is_commented_out() {
    let minimal = good(MINIMAL);
    assert!(format!("{:?}", minimal.flags).contains("worker-urls"), "it is of use as it is");
    let config = good(FULL);
    assert!(config.sections.pools.is_empty() && config.sections.keys.is_empty(), "the defaults are empty lists");
    let config = understood(&switched_on(FULL)).expect("the commented settings are right");
    let lists = [
        config.sections.listeners.len(),
        config.sections.certificates.len(),
        config.sections.pools.len(),
        config.sections.routes.len(),
        config.sections.modules.len(),
        config.sections.keys.len(),
    ];
    assert!(lists.iter().all(|length| *length > 0), "each section has an example: {lists:?}");
    assert!((FULL.len() as u64) < LARGEST);
}

#[test]
fn the_full_file_has_every_flag_with_its_default_and_a_comment() {
    let mut report = Report::default();
    let document = Node::read(FULL, &mut report).expect("it is YAML");
    let everything = Node::read(&switched_on(FULL), &mut report).expect("it is YAML");
    let lines: Vec<&str> = FULL.lines().collect();
    let mut wrong = String::new();
    for flag in Known::new().flags() {
        let key = key_of(flag.get_long().expect("a key is a long flag"));
        assert!(!SECTIONS.contains(&key.as_str()), "{key} is a flag and a section");
        let want = snippet(flag, &key);
        let is_default = match document.get(&key) {
            Some(node) if matches!(flag.get_action(), clap::ArgAction::SetTrue) => values(node) == ["false"],
            Some(node) => !flag.get_default_values().is_empty() && values(node) == flag.get_default_values(),
            None => flag.get_default_values().is_empty() && everything.get(&key).is_some(),
        };
        let at = lines.iter().position(|line| line.trim_start_matches('#').starts_with(&format!("{key}:")));
        let has_comment = at.is_some_and(|at| at > 0 && is_comment(lines[at - 1]));
        if !is_default || !has_comment {
            wrong.push_str(&want);
        }
    }
    assert!(wrong.is_empty(), "config/full.yaml should say:\n{wrong}");
}
