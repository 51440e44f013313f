//! Containers, their supervision, and the operations of the API.
//!
//! ```text
//!   api-server --- ops::<verb>(&Engine, ..) ---+            the verbs: free functions, one file each
//!                                              v
//!   Registry -- Container { definition, operation, live { State, Shim, .. } }      memory, a cache of the records
//!                                              ^
//!   shims --- Observation --> supervise::run --+--> events, restarts, removals
//!
//! <data-root>/containers/<id>/config.json     the record; hostname, hosts, resolv.conf and the log lie beside it
//! <data-root>/trash/<random>                  directories of removed containers, until the sweep
//! <data-root>/seccomp/                        compiled system-call filters
//! <data-root>/engine-id                       what `info` shows as ID
//! <data-root>/build-cache-mounts/<name>/      what commands of builds find again (`ops::build::caches`)
//! <data-root>/volumes/                        crate `volume`
//! <data-root>/{images.redb,content,snapshots} crate `image`
//! <exec-root>/containers/<id>/                a shim's files, until its end is recorded (crate `shim-api`)
//!                             exec-<id>.json  an exec that was made and not started
//! ```
//! **Who decides.** [`container::state::State::step`] is the only place where a container's state changes; operations and the
//! [`supervise`] loop feed it, and [`supervise::perform`] does what it asks. A run belongs to its shim: the daemon may be
//! killed at any instant, and [`Engine::open`] asks the shims that live and reads what the others left. How a container
//! ended that removed itself is remembered for a minute ([`farewells`]), for a client of the daemon before.
//!
//! **Locks.** `Container::operation` (asynchronous) is held by start, remove and rename from beginning to end, and by an
//! attach to what does not run until the next start will find it; never by what only looks or sends a signal, but who
//! asks during a start waits for its outcome. `Core::image_users` keeps the removal of an image and the creation of its
//! containers apart. All other locks are held over map and field access only. Order: operation, views,
//! recording, live.
//!
//! **Cancellation.** What changes something runs in a task of its own ([`Engine::detached`]), so that a client that hangs up
//! half-way changes nothing about it.
//!
//! **Blocking.** Disks are left to `bridge::blocking`. Done in place: what is on the tmpfs of the exec root, and the start of
//! a shim.
//!
//! Deliberately not here: HTTP, what an old API version looks like, the specification (`container-spec`), streams and logs
//! being written (the shim), networks (not yet).

pub mod changeable;
pub mod config;
pub mod connection;
pub mod container;
pub mod events;
pub mod exec;
pub mod facts;
pub mod farewells;
pub mod filters;
pub mod health;
pub mod metrics;
pub mod ops;
pub mod recorder;
pub mod registry;
pub mod restart;
pub mod shim;
pub mod supervise;

mod admission;
mod attestations;
mod blame;
mod cdi;
mod clock;
mod detach_keys;
mod devices;
mod engine;
mod held_layers;
mod hosts;
mod image_mounts;
mod inflated;
mod instructions;
mod launch;
mod limits;
pub mod links;
mod log_target;
pub mod names;
pub mod networking;
mod open;
mod own_files;
mod platforms;
mod programs;
mod propagation;
mod pulls;
mod readiness;
mod runtimes;
mod sharing;
mod stream;
mod sync;
mod time_query;
mod upkeep;
mod view;
mod volumes;

pub use admission::{AdmissionError, TrustConfig, TrustConfigError};
pub use changeable::Changeable;
pub use config::{
    BuildCacheConfig, EngineConfig, ImageBudgetConfig, RegistriesConfig, ResolverConfig, RuntimeConfig, SeccompConfig,
};
pub use engine::{Engine, give_memory_back};
pub use log_target::check_log;
pub use open::OpenError;
pub use ops::build::Limits as BuildCacheLimits;
pub use platforms::PlatformMismatch;
pub use registry::LookupError;
pub use registry_client::{AddressRange, MirrorError, Mirrors, Proxies, ProxyError, without_password};
pub use snapshot::{DriverError, check_name as check_storage_driver};
