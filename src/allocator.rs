//! The allocator of the process, mimalloc, and when memory that was freed goes back to the system.

/// What the executable allocates with.
pub type Allocator = mimalloc::MiMalloc;

/// An [`Allocator`].
pub const ALLOCATOR: Allocator = mimalloc::MiMalloc;

/// Gives back to the system what this thread has freed. mimalloc keeps it for a second, and looks at the time only when
/// the thread allocates: without this, a gateway keeps what a crowd of clients needed until the next crowd comes.
///
/// It costs a look at each of the thread's pages of 64 KiB, a system call for each range that is given back, and page faults
/// when the memory is needed again. Not for each request.
pub fn release_freed() {
    #[expect(unsafe_code, reason = "a plain call into the allocator, which any thread may make at any time")]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
