//! Linear memory as the host sees it.

const PAGE: usize = 65_536;

/// The first address that is not memory.
pub fn end() -> usize {
    pages() * PAGE
}

/// An address outside of the memory.
pub fn past_end() -> usize {
    end() + 8
}

#[cfg(target_arch = "wasm32")]
pub fn pages() -> usize {
    std::arch::wasm32::memory_size(0)
}

/// Says whether there was one.
#[cfg(target_arch = "wasm32")]
pub fn grow_by_a_page() -> bool {
    std::arch::wasm32::memory_grow(0, 1) != usize::MAX
}

/// Tests run on a machine that has no linear memory.
#[cfg(not(target_arch = "wasm32"))]
pub fn pages() -> usize {
    1
}

#[cfg(not(target_arch = "wasm32"))]
pub fn grow_by_a_page() -> bool {
    false
}
