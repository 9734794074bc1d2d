//! What the README shows is what is built.

const README: &str = include_str!("../../README.md");

#[test]
fn the_readme_shows_the_source() {
    let source = include_str!("../src/lib.rs");
    assert!(README.contains(&format!("```rust\n{source}```\n")));
}

#[test]
fn the_readme_names_the_version_we_use() {
    let workspace = include_str!("../../Cargo.toml");
    let dependency = workspace
        .lines()
        .find(|line| line.starts_with("wit-bindgen = "));
    assert!(README.contains(dependency.expect("the workspace has it")));
}
