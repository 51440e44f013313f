//! End-to-end tests with the real programs; one module per area.
//!
//! Each test owns a daemon in scratch directories and types its lines on every command line there is. What is expected
//! here was seen on a real Docker daemon first: `LONGSHORE_TEST_HOST=unix:///path/docker.sock` runs the tests against
//! one again (its own busybox and, of the command lines, docker's alone).

mod load_and_run;
