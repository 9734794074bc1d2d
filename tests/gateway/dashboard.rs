//! The dashboard that is shipped is a dashboard, and shows metrics that there are.

use std::collections::BTreeSet;

use serde_json::Value;

const DASHBOARD: &str = include_str!("../../config/grafana.json");
const README: &str = include_str!("../../README.md");

/// The expressions of all panels that show something.
fn expressions(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let shown = panels.iter().filter(|panel| panel["type"] != "row");
    let targets = shown.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets.map(|target| target["expr"].as_str().expect("an expression")).collect()
}

/// Names of ours in an expression; a histogram's parts are known by its own name.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let ours = words.filter(|word| word.starts_with("smg_"));
    ours.map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name))
}

#[test]
fn the_dashboard_shows_metrics_that_the_readme_lists() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let expressions = expressions(&dashboard);
    assert!(expressions.iter().all(|expression| metrics(expression).next().is_some()));
    let shown: BTreeSet<_> = expressions.into_iter().flat_map(metrics).collect();
    assert!(shown.len() > 20, "{shown:?}");
    let unknown: Vec<_> = shown.iter().filter(|name| !README.contains(&format!("`{name}`"))).collect();
    assert!(unknown.is_empty(), "the README does not list {unknown:?}");
}

#[test]
fn every_panel_has_a_place_of_its_own() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let place = &panel["gridPos"];
        assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        assert!(places.insert((place["x"].as_u64(), place["y"].as_u64())), "{panel}");
        assert!(place["x"].as_u64().zip(place["w"].as_u64()).is_some_and(|(x, width)| x + width <= 24), "{panel}");
    }
}
