//! End-to-end tests with the real programs; one module per area.
//!
//! Each test owns a daemon in scratch directories and types its lines on every command line there is. What is expected
//! here was seen on a real Docker daemon first. To run the tests against one again, with its busybox and docker's command
//! line alone:
//!
//! ```text
//! LONGSHORE_TEST_HOST=unix:///path/docker.sock LONGSHORE_DIST=/none cargo nextest run -p e2e
//! ```

mod load_and_run;
mod terminal;
