//! End-to-end tests with the real programs; one module per area.
//!
//! Each test owns a daemon in scratch directories and types its lines on every command line there is. What is expected
//! here was seen on a real Docker daemon first. To run the tests against one again, with its busybox and docker's command
//! line alone (the last variable names a directory that the daemon sees at the same path, for what containers bind):
//!
//! ```text
//! LONGSHORE_TEST_HOST=unix:///path/docker.sock LONGSHORE_DIST=/none LONGSHORE_TEST_SHARED=/dir cargo nextest run -p e2e
//! ```

#![expect(clippy::unwrap_used, reason = "the functions around the tests fail as tests do")]

mod access;
mod api_socket;
mod bootstrap;
mod budget;
mod build;
mod build_checks;
mod build_ends;
mod buildx;
mod cgroup2;
mod checkpoint;
mod client_certificates;
mod completion;
mod configured;
mod crash;
mod create_bodies;
mod crowd;
mod death;
mod devices;
mod disk_usage;
mod dual_stack;
mod edges;
mod egress;
mod every_command;
mod exec;
mod exit_order;
mod explained;
mod exposure;
mod files;
mod firewalld;
mod flags;
mod foreign_firewall;
mod full_disk;
mod fuzz;
mod gateway_modes;
mod health;
mod help;
mod history;
mod hostile;
mod hostile_images;
mod hostile_registries;
mod idle;
mod image_mounts;
mod images;
mod indexes;
mod inspect;
mod interrupted;
mod isolation;
mod journald;
mod leftovers;
mod lifecycle;
mod links;
mod live;
mod load_and_run;
mod log_drivers;
mod login;
mod logs;
mod manifests;
mod mirrors;
mod names;
mod network;
mod network_crash;
mod on_demand;
mod parents;
mod pause;
mod platforms;
mod pull;
mod push;
mod registry_proxies;
mod relay;
mod remote;
mod republish;
mod restart_policy;
mod runtimes;
mod save;
mod sdks;
mod search;
mod sharing;
mod shims;
mod sizes;
mod soak;
mod storage;
mod streams;
mod stuck;
mod support;
mod system;
mod templates;
mod terminal;
mod trust;
mod tutorials;
mod user_networks;
mod versions;
mod volume_copies;
mod volume_mounts;
mod volumes;
mod web_import;
mod words;
