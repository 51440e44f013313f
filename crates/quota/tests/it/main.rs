//! Limits on real file systems. They need a kernel with quotas: `cargo xtask vm` starts one.

#![expect(clippy::unwrap_used, reason = "the functions around the tests fail as tests do")]

mod limits;
