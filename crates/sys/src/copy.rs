//! memcpy and memmove for static programs on x86-64.
//!
//! musl's copy with one string instruction whatever the length, which takes long to begin; what our programs copy is nearly
//! always short: strings of JSON, growing lists, structures. Of the processor time of `longshore-runtime run` that was 7 %.
//! Both are in one file, because musl's memmove would bring musl's memcpy along.
//!
//! ```text
//! up to 32 bytes     all of them are loaded before any is stored, from both ends: for overlapping regions, too
//! up to 256 bytes    32 a turn, and the last 32 from the end
//! more               the string instruction
//! ```
//!
//! memmove copies longer regions from their ends where the beginning of one lies inside the other.

/// Both functions, under these names.
macro_rules! define {
    ($memcpy:literal, $memmove:literal) => {
        // SAFETY: these are the functions of C11, 7.24.2, in the calling convention of the System V ABI: destination in rdi,
        // source in rsi, length in rdx, the destination returned in rax; besides these only rcx, r8 and xmm registers change,
        // which belong to the callee. Nothing outside the two regions is read or written. The direction flag stays clear.
        std::arch::global_asm!(
            ".text",
            ".p2align 5",
            concat!(".globl ", $memcpy),
            concat!(".type ", $memcpy, ", @function"),
            concat!($memcpy, ":"),
            "mov rax, rdi",
            "cmp rdx, 32",
            "ja 20f",
            "40:", // Up to 32.
            "cmp rdx, 16",
            "jae 44f",
            "cmp rdx, 8",
            "jae 43f",
            "cmp rdx, 4",
            "jae 42f",
            "test rdx, rdx",
            "je 41f",
            "movzx ecx, byte ptr [rsi]", // One to three: the first, the middle one, the last.
            "movzx r8d, byte ptr [rsi + rdx - 1]",
            "shr rdx",
            "movzx esi, byte ptr [rsi + rdx]",
            "mov byte ptr [rdi + rdx], sil",
            "mov byte ptr [rdi], cl",
            "lea rdi, [rdi + rdx]",
            "adc rdi, rdx",
            "mov byte ptr [rdi - 1], r8b",
            "41:",
            "ret",
            "42:",
            "mov ecx, dword ptr [rsi]",
            "mov r8d, dword ptr [rsi + rdx - 4]",
            "mov dword ptr [rdi], ecx",
            "mov dword ptr [rdi + rdx - 4], r8d",
            "ret",
            "43:",
            "mov rcx, qword ptr [rsi]",
            "mov r8, qword ptr [rsi + rdx - 8]",
            "mov qword ptr [rdi], rcx",
            "mov qword ptr [rdi + rdx - 8], r8",
            "ret",
            "44:",
            "movups xmm0, xmmword ptr [rsi]",
            "movups xmm1, xmmword ptr [rsi + rdx - 16]",
            "movups xmmword ptr [rdi], xmm0",
            "movups xmmword ptr [rdi + rdx - 16], xmm1",
            "ret",
            "20:", // More than 32, forward.
            "cmp rdx, 256",
            "ja 22f",
            "movups xmm2, xmmword ptr [rsi + rdx - 32]",
            "movups xmm3, xmmword ptr [rsi + rdx - 16]",
            "lea rcx, [rdi + rdx - 32]",
            "21:",
            "movups xmm0, xmmword ptr [rsi]",
            "movups xmm1, xmmword ptr [rsi + 16]",
            "movups xmmword ptr [rdi], xmm0",
            "movups xmmword ptr [rdi + 16], xmm1",
            "add rsi, 32",
            "add rdi, 32",
            "cmp rdi, rcx",
            "jb 21b",
            "movups xmmword ptr [rcx], xmm2",
            "movups xmmword ptr [rcx + 16], xmm3",
            "ret",
            "22:",
            "mov rcx, rdx",
            "rep movsb",
            "ret",
            concat!(".size ", $memcpy, ", . - ", $memcpy),
            ".p2align 4",
            concat!(".globl ", $memmove),
            concat!(".type ", $memmove, ", @function"),
            concat!($memmove, ":"),
            "mov rax, rdi",
            "cmp rdx, 32",
            "jbe 40b",
            "mov rcx, rdi",
            "sub rcx, rsi",
            "cmp rcx, rdx",
            "jae 20b",                        // The destination does not begin inside the source.
            "movups xmm2, xmmword ptr [rsi]", // Backward, 32 a turn, and the first 32 last.
            "movups xmm3, xmmword ptr [rsi + 16]",
            "30:",
            "movups xmm0, xmmword ptr [rsi + rdx - 16]",
            "movups xmm1, xmmword ptr [rsi + rdx - 32]",
            "movups xmmword ptr [rdi + rdx - 16], xmm0",
            "movups xmmword ptr [rdi + rdx - 32], xmm1",
            "sub rdx, 32",
            "cmp rdx, 32",
            "ja 30b",
            "movups xmmword ptr [rdi], xmm2",
            "movups xmmword ptr [rdi + 16], xmm3",
            "ret",
            concat!(".size ", $memmove, ", . - ", $memmove),
        );
    };
}

#[cfg(target_env = "musl")]
define!("memcpy", "memmove");

#[cfg(test)]
mod tests {
    // Under names of their own: the C library of tests has better ones.
    define!("longshore_memcpy", "longshore_memmove");

    unsafe extern "C" {
        fn longshore_memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
        fn longshore_memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    }

    const LENGTHS: [usize; 12] = [96, 127, 128, 129, 255, 256, 257, 258, 300, 512, 1000, 4096];

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 31 % 251) as u8).collect()
    }

    #[test]
    fn every_length_is_copied_and_nothing_beside_it() {
        for length in (0..=80).chain(LENGTHS) {
            let from = pattern(length);
            let mut to = vec![0xff; length + 2];
            // SAFETY: both are of that length, and apart.
            let answer = unsafe { longshore_memcpy(to.as_mut_ptr().add(1), from.as_ptr(), length) };
            assert_eq!(answer, to.as_mut_ptr().wrapping_add(1));
            assert!(to[1..=length] == from && to[0] == 0xff && to[length + 1] == 0xff, "{length}");
        }
    }

    #[test]
    fn overlapping_regions_arrive_whole() {
        for length in (0..=80).chain(LENGTHS) {
            for shift in [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 40, 63, 64, 100, 5000] {
                for (from, to) in [(0, shift), (shift, 0)] {
                    let mut bytes = pattern(length + shift);
                    let mut expected = bytes.clone();
                    expected.copy_within(from..from + length, to);
                    // SAFETY: both lie inside the vector.
                    let answer =
                        unsafe { longshore_memmove(bytes.as_mut_ptr().add(to), bytes.as_ptr().add(from), length) };
                    assert_eq!(answer, bytes.as_mut_ptr().wrapping_add(to));
                    assert!(bytes == expected, "{length} bytes from {from} to {to}");
                }
            }
        }
    }
}
