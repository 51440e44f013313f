//! Memory that a process can do without for a while.

/// Takes the pages of the program's own code out of this process's page table. They stay in the page cache, and those that
/// run again come back by themselves: after a busy beginning a waiting process keeps only what it waits with.
///
/// Does nothing in a program that is not linked statically at fixed addresses.
pub fn release_program_pages() {
    #[cfg(all(target_env = "musl", target_feature = "crt-static"))]
    {
        unsafe extern "C" {
            static __executable_start: u8;
            static etext: u8;
        }
        let start = &raw const __executable_start as usize;
        let end = &raw const etext as usize;
        // SAFETY: the linker makes both symbols: between them are the segments of headers, constants and code, which are
        // mapped without PROT_WRITE, so that every page dropped is read back from the file as it was. The last page is
        // the kernel's to round up to; the next segment begins on another one. A failure changes nothing.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// Gives what the allocator keeps for later back to the kernel; costs a fraction of a millisecond, and faults later on.
///
/// Only glibc keeps much; elsewhere this does nothing.
pub fn release_free_heap() {
    // SAFETY: malloc_trim takes the allocator's own locks and touches only memory that nobody uses.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
