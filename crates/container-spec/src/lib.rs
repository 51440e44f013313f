//! From what the client asked for to the OCI specification.
//!
//! Everything here is a pure function of its arguments: no I/O, no clock, no randomness. The engine gathers
//! [`HostFacts`] once, checks and completes a request at `create`, and plans at every `start`:
//!
//! ```text
//!   create:  validate(request) -> merge_image(config) -> normalize_host(host) -> plan_points() -> the container's record
//!   start:   record + HostFacts + Placement -> plan() -> Planned { spec, user, .. } -> the shim
//!   exec:    record + ExecCreate -> plan_exec() -> Process
//! ```
//!
//! - [`facts`]: what is known of the machine.
//! - [`validate()`]: what is refused, in Docker's words, and what this version does not offer, by name.
//! - [`merge`], [`normalize`]: the image's defaults and Docker's.
//! - [`points`]: which mounts a container has, of its own, of others, of its image.
//! - [`bind`], [`ports`], [`signal`], [`security`], [`links`], [`log`]: the small languages inside a request.
//! - [`block_io`], [`capability`], [`device`], [`mounts`], [`namespaces`], [`plan`]: the parts of the specification.
//! - [`cdi`]: devices by name, from files of their vendors.
//! - [`storage`]: how much a container's own files may take.
//! - [`update`]: other limits for a container that exists.
//! - [`health`]: how a container is asked whether it is well.
//! - [`files`]: contents of /etc/hosts, /etc/resolv.conf and /etc/hostname.
//!
//! Not here: looking at the host (that a bind's source exists is for the engine to find out), user names (resolved inside
//! the root by the shim), compiling system-call filters (crate `seccomp`).

pub mod bind;
pub mod block_io;
pub mod capability;
pub mod cdi;
pub mod device;
pub mod facts;
pub mod files;
pub mod health;
pub mod links;
pub mod log;
pub mod merge;
pub mod mounts;
pub mod namespaces;
pub mod normalize;
pub mod plan;
pub mod points;
pub mod port_change;
pub mod ports;
pub mod security;
pub mod signal;
pub mod storage;
pub mod update;
pub mod validate;

#[cfg(test)]
mod testing;

pub use capability::capabilities;
pub use device::{Granted, HostDevices};
pub use facts::{BlockIoControls, CgroupLayout, Controls, HostFacts, KernelVersion};
pub use health::{Probe, probe};
pub use merge::merge_image;
pub use normalize::normalize_host;
pub use plan::{Placement, Planned, exec_user, plan, plan_exec};
pub use points::{BindSource, Point, Ready, Shared, VolumeWish, bind_sources, plan_points};
pub use security::{SeccompChoice, seccomp_choice};
pub use update::{UpdateConflict, merge_update, update_resources, validate_update};
pub use validate::{InvalidRequest, Warning, validate};
