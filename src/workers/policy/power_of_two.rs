//! The less loaded of two different random candidates: nearly as even as asking all, and never more than two loads read.

/// Of equals, either. `among` has two or more.
pub fn choose(among: &[usize], load: &impl Fn(usize) -> f64) -> usize {
    let first = fastrand::usize(..among.len());
    let second = (first + fastrand::usize(1..among.len())) % among.len();
    let (first, second) = (among[first], among[second]);
    if load(second) < load(first) { second } else { first }
}
