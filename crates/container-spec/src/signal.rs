//! Signals of containers.

use engine_api::container::Config;
pub use oci::signal::parse_signal;

/// The signal that asks a container to end where neither image nor request names one: SIGTERM.
pub const STOP_SIGNAL_DEFAULT: i32 = 15;

/// The signal that asks a container to end: what image or request say, else SIGTERM.
pub fn stop_signal(config: &Config) -> i32 {
    parse_signal(&config.stop_signal).unwrap_or(STOP_SIGNAL_DEFAULT)
}
