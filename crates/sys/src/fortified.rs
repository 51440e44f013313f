//! What Debian's libseccomp.a wants of glibc and musl does not have, so that static programs can hold it.
//!
//! It is compiled with _FORTIFY_SOURCE, which calls checking twins of some functions. Of those it has one, in the function
//! that prints a filter as text (`seccomp_export_pfc`), which nobody calls.

/// Ends the process: whoever calls it expects it to print.
///
/// The caller's arguments, of which the C function takes any number, are left where they are: it never returns.
// SAFETY: musl has no function of this name, and no other crate of ours defines it.
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
extern "C" fn __fprintf_chk() -> ! {
    std::process::abort()
}
