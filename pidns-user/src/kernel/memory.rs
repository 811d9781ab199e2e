//! Limits how much memory the C library's allocator keeps.

/// Makes the allocator return large blocks to the kernel when they are freed, and makes threads share arenas. (By
/// default, its threshold for large blocks grows with use, and each thread gets its own arena.)
pub fn limit_cached_memory() {
    const LARGE: libc::c_int = 256 << 10;
    // SAFETY: mallopt has no preconditions.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Returns freed memory to the kernel.
pub fn trim() {
    // SAFETY: malloc_trim has no preconditions.
    unsafe { libc::malloc_trim(0) };
}
