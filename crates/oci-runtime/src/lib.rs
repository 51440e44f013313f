//! From an OCI specification to a running container, in the caller's process.
//!
//! [`create`] makes everything up to execve and leaves the first process waiting at its gate; [`Container::start`] opens
//! the gate; [`Container::exec`] adds processes. The caller is the parent of all of them and reaps them
//! (`sys::wait`).
//!
//! ```text
//! parent                                        child
//! plan the specification (pure)
//! build root and mounts, detached
//! make the cgroup, open its entrance
//! resolve the user in the root's files
//! clone3 with new namespaces  --------------->  enter the cgroup; join namespaces
//!                                               names, sysctls, loopback
//!                                               root over /; attach mounts; devices
//!                                               pivot_root, drop the host's tree; masks; read-only
//!                                               session, terminal or streams, limits, ids, capabilities, seccomp
//!                        <------- READY or why   look up the program as the container's user
//! Container                                     close everything but the gate; wait
//! start                  ------- START ------->  execve
//! ```
//!
//! Nothing appears in the host's mount table, and no path of the container is ever resolved on the host: mount points are
//! found beneath the root by descriptor. If the parent dies before START, the child reads the end of the stream and ends.
//! Afterwards the container depends on its parent for nothing but its exit status.
//!
//! **Parents that end first.** A runtime of runc's kind creates in one process, starts in a second and executes in a third: with a
//! [`Handover`] the gate is a FIFO ([`open_gate`]), and [`Container::open`] makes a container of a living process again.
//!
//! **User namespaces.** Between the two stands a third process, and the file systems are the child's: `user_namespace` has
//! that story, `rootless` what callers without privilege do without ([`CgroupNeed`]).
//!
//! [`Container::join`] sends a process ahead that joins the container's namespaces, closes what is ours, and only then
//! clones the new one, as our child: what is born in the container's PID namespace has nothing of the host's
//! ([`Joining`]).
//!
//! [`checkpoint`] writes a container to files and makes it from them again, with CRIU.
//!
//! **Threads.** [`create`] refuses to run beside a second thread; exec may run beside threads that never allocate. The
//! child allocates, which is safe only with nobody holding the allocator's lock at the clone.
//!
//! **Fields.** Where each of the specification's is planned and done; what a plan cannot do is told with the field's full
//! name ([`PlanError`], [`FieldError`]). A test of `longshore-runtime` walks the whole schema.
//!
//! ```text
//! process: args, env, cwd, user, capabilities, rlimits, noNewPrivileges, terminal, consoleSize   process
//!          oomScoreAdj                                                                           child, joining
//!          scheduler, ioPriority, execCPUAffinity                                                scheduling
//!          apparmorProfile, selinuxLabel                                                         labels
//! root, mounts, linux.rootfsPropagation   mounts, file_system, mount_options, place, id_map, remount, tmpfs
//! hostname, domainname, linux.devices, maskedPaths, readonlyPaths                                plan, child
//! hooks                                                                                          hooks
//! linux: namespaces                                                                       plan, child, birth
//!        uidMappings, gidMappings                                             user_namespace, supply, rootless
//!        timeOffsets                                                                             time
//!        sysctl                                                                                  sysctl
//!        netDevices                                                                              net_devices
//!        personality, memoryPolicy                                                               scheduling
//!        mountLabel                                                                              labels
//!        seccomp                                                               filter, and the crate seccomp
//!        resources, cgroupsPath                                                              the crate cgroup, delegation
//! ```
//!
//! No host that it was tried on has resctrl: `linux.intelRdt` is refused by `longshore-runtime`, as is what other platforms
//! have of their own.
//!
//! Deliberately not here: the specification's making (`container-spec`), compiling seccomp profiles, networks beyond the
//! loopback interface and devices that move in, waiting for and recording the exit.

mod birth;
mod channel;
pub mod checkpoint;
mod child;
mod container;
mod delegation;
mod error;
mod fault;
mod field;
mod file_system;
mod filter;
pub mod hooks;
mod id_map;
mod inside;
mod interpreter;
mod joining;
mod labels;
mod mount_options;
mod mounts;
mod net_devices;
mod overlay_options;
mod place;
mod plan;
mod process;
mod remount;
mod rootless;
mod scheduling;
mod supply;
mod sysctl;
mod target;
mod time;
mod tmpfs;
pub mod user;
mod user_namespace;

pub use channel::open_gate;
pub use container::{
    Container, CreateOptions, ExecOptions, Handover, Kept, Living, Stdio, UserRequest, check, create,
    default_device_rules,
};
pub use error::{CreateError, ExecError, OpenError, PlanError, ProcessError, StartError, Step, SystemError};
pub use field::FieldError;
pub use filter::ListenerError;
pub use joining::{ExecProcess, Joining};
pub use mounts::{clone_part, detached_root};
pub use process::unavailable_capabilities;
pub use rootless::{CgroupNeed, is_rootless};
