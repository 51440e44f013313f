//! System-call filters: Docker's profiles, and their compiled form.
//!
//! ```text
//!   JSON or Profile::docker_default()  --resolve(capabilities, architecture, kernel)-->  Filter
//!   Filter  --compile (libseccomp)-->  an array of struct sock_filter  --cached-->  <directory>/<sha256>.bpf
//! ```
//!
//! - [`profile`]: what users write and Docker defines; rules that depend on the machine and the container.
//! - [`resolve()`]: the rules that count here, in the form of the OCI runtime specification.
//! - [`compile()`]: the program that the kernel runs, as runc makes it, with a balanced search tree.
//! - [`cached`]: the same, from a file. Compiling takes tens of milliseconds, so it happens once for each filter; with [`Programs`]
//!   a start costs one `stat` afterwards. A file is whole or absent; anybody may delete it; one of another libseccomp or
//!   kernel is not found.
//!
//! Not here: loading a filter, with its flags, which the container's own process does, and handing over the listener of
//! SCMP_ACT_NOTIFY.

pub mod cache;
pub mod compile;
mod conflicts;
mod default;
pub mod profile;
pub mod resolve;

pub use cache::{CacheError, Findings, Programs, cached};
pub use compile::{CompileError, architecture_names, compile};
pub use conflicts::{Contradiction, PassedOver};
pub use profile::{Action, Argument, Operator, Profile, ProfileError};
pub use resolve::{Arch, Filter, FilterRule, resolve};
