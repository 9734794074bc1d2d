//! The process's allocator, mimalloc, and when it returns freed memory to the system.

/// The type of the executable's global allocator.
pub type Allocator = mimalloc::MiMalloc;

/// An [`Allocator`].
pub const ALLOCATOR: Allocator = mimalloc::MiMalloc;

/// Returns the memory that this thread has freed to the system. mimalloc keeps freed memory for a second, and checks
/// the time only when the thread allocates. Without this call, an idle gateway would keep the memory of its last load
/// peak.
///
/// The call visits each of the thread's 64 KiB pages, makes a system call for each range that it returns, and causes
/// page faults when the memory is needed again. Do not call it for each request.
pub fn release_freed() {
    #[expect(unsafe_code, reason = "an allocator call that any thread may make at any time")]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
