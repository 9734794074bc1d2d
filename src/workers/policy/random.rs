//! Any candidate, each with the same chance.

pub fn choose(among: &[usize]) -> usize {
    among[fastrand::usize(..among.len())]
}
