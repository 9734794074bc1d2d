//! Always the first candidate: for one worker, or one with stand-ins.

pub fn choose(among: &[usize]) -> usize {
    among[0]
}
