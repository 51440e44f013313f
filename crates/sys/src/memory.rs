//! Memory that a process can do without for a while, and the heap of static programs.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use dlmalloc::Dlmalloc;
use rustix::mm::{Advice, madvise};

/// The allocator of programs that musl is linked into: its own gives every small region back at once, which is a mapping
/// and a page fault each time.
///
/// Most of these programs have one thread, so the lock is one exchange. A mutex of the C library took a fifth of all that
/// the OCI runtime does outside the kernel. A process that forks while another of its threads allocates cannot allocate
/// in the child.
pub struct Heap {
    is_locked: AtomicBool,
    heap: UnsafeCell<Dlmalloc>,
}

// SAFETY: what is in the cell is reached through `Heap::with` alone, one caller at a time.
unsafe impl Sync for Heap {}

impl Heap {
    /// An empty one.
    pub const fn new() -> Heap {
        Heap { is_locked: AtomicBool::new(false), heap: UnsafeCell::new(Dlmalloc::new()) }
    }

    /// Nothing in `work` unwinds or allocates through `self`.
    #[inline]
    fn with<T>(&self, work: impl FnOnce(&mut Dlmalloc) -> T) -> T {
        while self.is_locked.swap(true, Ordering::Acquire) {
            rustix::thread::sched_yield();
        }
        // SAFETY: whoever has set the flag is alone until it is taken back.
        let result = work(unsafe { &mut *self.heap.get() });
        self.is_locked.store(false, Ordering::Release);
        result
    }
}

impl Default for Heap {
    fn default() -> Heap {
        Heap::new()
    }
}

// SAFETY: the calls are handed on as they come; the promises of both sides are the same.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises of `layout`.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, region: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises of `region` and `layout`.
        self.with(|heap| unsafe { heap.free(region, layout.size(), layout.align()) });
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises of `layout`.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn realloc(&self, region: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises of `region` and `layout`.
        self.with(|heap| unsafe { heap.realloc(region, layout.size(), layout.align(), size) })
    }
}

/// Takes the pages of the program's own file that nobody writes to (code, constants, tables) out of this process's page
/// table. They stay in the page cache, and those that are needed again come back by themselves, each with the up to 15
/// beside it that the kernel maps along: after a busy beginning a waiting process keeps only what it waits with, if this is
/// called right before.
#[inline]
pub fn release_program_pages() {
    // All are found before the first one is gone: the headers are among them.
    for segment in constant_segments() {
        // SAFETY: the segment is mapped from the program's file without PROT_WRITE, so that every page dropped is read
        // back as it was when it is touched again. A failure changes nothing.
        let _ = unsafe { madvise(segment.start as *mut _, segment.len(), Advice::LinuxDontNeed) };
    }
}

/// More than any linker makes: headers, code, constants.
const SEGMENTS_MAX: usize = 4;

/// Where the program's segments without PROT_WRITE are, in whole pages; what is not there is empty.
fn constant_segments() -> [Range<usize>; SEGMENTS_MAX] {
    unsafe extern "C" {
        static __ehdr_start: u8;
    }
    let base = &raw const __ehdr_start as usize;
    // SAFETY: GNU ld and lld put the symbol at the beginning of the file, which is part of the first segment to be loaded,
    // with the headers behind it as the file header says; they are aligned and live as long as the program.
    let headers = unsafe {
        let file = &*(base as *const libc::Elf64_Ehdr);
        let first = (base + file.e_phoff as usize) as *const libc::Elf64_Phdr;
        std::slice::from_raw_parts(first, file.e_phnum.into())
    };
    let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    // What addresses in the headers are relative to: zero, unless the program was loaded anywhere (position-independent).
    let offset = loaded().find(|header| header.p_offset == 0).map_or(0, |first| base - first.p_vaddr as usize);
    let page = rustix::param::page_size();
    let mut segments = [const { 0..0 }; SEGMENTS_MAX];
    let constant = loaded().filter(|header| header.p_flags & libc::PF_W == 0);
    for (segment, header) in segments.iter_mut().zip(constant) {
        let start = offset + header.p_vaddr as usize;
        // The kernel maps whole pages; the next segment begins on another one.
        *segment = start / page * page..(start + header.p_memsz as usize).next_multiple_of(page);
    }
    segments
}

/// Lets all threads that begin after this allocate from one heap, where each would have one of its own: for programs whose
/// threads come and go and mostly wait.
///
/// Only glibc makes such heaps; elsewhere this does nothing.
pub fn share_heap() {
    // SAFETY: mallopt sets a number that the allocator reads under its own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_gives_threads_regions_of_their_own() {
        let heap = Heap::new();
        let fill = &|mark: u8| {
            for round in 1..2_000_usize {
                let layout = Layout::from_size_align(round % 700 + 1, 1 << (round % 7)).unwrap();
                // SAFETY: of that size until it grows, and given back as it was taken.
                unsafe {
                    let region = heap.alloc(layout);
                    assert!(!region.is_null() && region.addr().is_multiple_of(layout.align()));
                    region.write_bytes(mark, layout.size());
                    let region = heap.realloc(region, layout, layout.size() * 2);
                    let kept = std::slice::from_raw_parts(region, layout.size());
                    assert!(kept.iter().all(|byte| *byte == mark), "round {round}");
                    heap.dealloc(region, Layout::from_size_align(layout.size() * 2, layout.align()).unwrap());
                }
            }
        };
        std::thread::scope(|scope| {
            for mark in [1, 2, 3] {
                scope.spawn(move || fill(mark));
            }
        });
    }

    /// Kibibytes of this program's file that are mapped and were never written to, by /proc/self/smaps.
    fn mapped_kib(segment: &Range<usize>) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (_, rest) = smaps.split_once(&format!("{:08x}-", segment.start)).expect("a mapping begins there");
        let line = rest.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn constant_segments_are_mappings_of_this_program_and_can_go() {
        let segments = constant_segments();
        let here = constant_segments as *const () as usize;
        let code = segments.iter().find(|segment| segment.contains(&here)).expect("this code is constant");
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        for segment in segments.iter().filter(|segment| !segment.is_empty()) {
            let line =
                maps.lines().find(|line| line.starts_with(&format!("{:08x}-{:08x} ", segment.start, segment.end)));
            assert!(line.is_some_and(|line| line.contains("r-") && !line.contains(" rw")), "{segment:x?} in {maps}");
        }
        // Everything that ever runs is in; afterwards only what reads the figure is.
        for at in code.clone().step_by(4096) {
            // SAFETY: readable memory of our own.
            unsafe { std::ptr::read_volatile(at as *const u8) };
        }
        let before = mapped_kib(code);
        release_program_pages();
        let after = mapped_kib(code);
        assert!(before == code.len() / 1024 && after < before, "{after} of {before} KiB");
    }
}
