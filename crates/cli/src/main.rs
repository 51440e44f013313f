//! `longshore`, and `docker` where it is called so.

/// musl's allocator gives every small region back at once: `ps` of 200 containers was 230 mappings and 900 page faults.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() {
    let arguments = std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
    std::process::exit(i32::from(cli::run(arguments)));
}
