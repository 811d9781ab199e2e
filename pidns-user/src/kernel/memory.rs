//! How the C library's allocator keeps memory.

/// Has large pieces go back to the kernel when they are freed, and threads share what they allocate from. (The allocator's own
/// idea of large grows with what it has seen, and it gives each thread memory of its own.)
pub fn keep_little() {
    const LARGE: libc::c_int = 256 << 10;
    // SAFETY: mallopt has no preconditions.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives back to the kernel what was freed.
pub fn trim() {
    // SAFETY: malloc_trim has no preconditions.
    unsafe { libc::malloc_trim(0) };
}
