//! The memory that the host holds: what `alloc` gave out, and results that wait to be read.
//!
//! Each block is a vector kept here until the host gives it back, so nothing that the host passes can harm the guest:
//! pointers are only compared. It is also known how many blocks the host forgot.

use std::cell::{Cell, RefCell};

use crate::{memory, resources};

thread_local! {
    static HELD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static NEXT_ALLOC: Cell<Alloc> = const { Cell::new(Alloc::Works) };
    static DEALLOC: Cell<Dealloc> = const { Cell::new(Dealloc::Works) };
}

/// What the next `alloc` does, and only the next.
#[derive(Clone, Copy)]
pub enum Alloc {
    Works,
    Zero,
    Traps,
    Outside,
}

/// What `dealloc` does from now on.
#[derive(Clone, Copy)]
pub enum Dealloc {
    Works,
    Traps,
    Loops,
}

pub fn set_next_alloc(fault: Alloc) {
    NEXT_ALLOC.set(fault);
}

pub fn set_dealloc(fault: Dealloc) {
    DEALLOC.set(fault);
}

pub fn alloc(size: usize) -> usize {
    match NEXT_ALLOC.replace(Alloc::Works) {
        Alloc::Works => zeroed(size).map_or(0, hold),
        Alloc::Zero => 0,
        Alloc::Traps => std::process::abort(),
        Alloc::Outside => memory::past_end(),
    }
}

/// Does nothing for what is no block.
pub fn dealloc(ptr: usize, size: usize) {
    match DEALLOC.get() {
        Dealloc::Works => HELD.with_borrow_mut(|held| {
            if let Some(found) = position(held, ptr, size) {
                held.swap_remove(found);
            }
        }),
        Dealloc::Traps => std::process::abort(),
        Dealloc::Loops => resources::spin(),
    }
}

/// Keeps a block for the host and returns its address.
pub fn hold(mut block: Vec<u8>) -> usize {
    // An empty vector has no memory, and all of them have the same address.
    block.reserve_exact(1);
    let ptr = block.as_mut_ptr() as usize;
    HELD.with_borrow_mut(|held| held.push(block));
    ptr
}

/// What the host wrote into a block.
pub fn held(ptr: usize, size: usize) -> Option<Vec<u8>> {
    HELD.with_borrow(|held| position(held, ptr, size).map(|found| held[found].clone()))
}

pub fn count() -> usize {
    HELD.with_borrow(Vec::len)
}

/// `None` where there is not that much memory.
fn zeroed(size: usize) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    block.try_reserve_exact(size.checked_add(1)?).ok()?;
    block.resize(size, 0);
    Some(block)
}

fn position(held: &[Vec<u8>], ptr: usize, size: usize) -> Option<usize> {
    held.iter()
        .position(|block| block.as_ptr() as usize == ptr && block.len() == size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_held_until_it_is_given_back() {
        let (empty, other, more) = (alloc(0), alloc(0), alloc(3));
        assert!(empty != other && other != more);
        assert_eq!(count(), 3);
        dealloc(more, 4);
        dealloc(more + 1, 3);
        dealloc(0, 0);
        assert_eq!(count(), 3, "what is no block is left alone");
        assert_eq!(held(more, 3), Some(vec![0; 3]));
        for (ptr, size) in [(empty, 0), (other, 0), (more, 3), (more, 3)] {
            dealloc(ptr, size);
        }
        assert_eq!(count(), 0);
    }

    #[test]
    fn too_much_is_zero() {
        assert_eq!(alloc(usize::MAX), 0);
        assert_eq!(alloc(usize::MAX / 2), 0);
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_fault_of_alloc_is_for_once() {
        set_next_alloc(Alloc::Zero);
        assert_eq!(alloc(8), 0);
        assert_ne!(alloc(8), 0);
    }
}
