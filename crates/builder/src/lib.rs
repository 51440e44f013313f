//! From a Dockerfile to operations, and what they are cached by. Pure.
//!
//! ```text
//! Dockerfile --plan--> Plan: the stages that are needed, in order, and how many steps they are
//! base image's configuration --Stage::begin--> Stage: configuration and arguments so far
//!                             Stage::step(Instruction) --> Step: the configuration that follows, the words that history
//!                                                          has for it, and the Operation on files, if any
//! parent, configuration, words --cache::key--> Key: equal where the outcome would be
//! ```
//! Whoever solves a plan (`engine::ops::build`) looks a step up by its key, else has the operation done and the image
//! recorded. A stage knows nothing of others' outcomes but the images that [`Operation::Copy`] names, so that stages
//! which do not need each other may be solved in any order.
//!
//! Semantics, sentences and the words of the history are those of dockerd's own builder (moby builder/dockerfile); what
//! that leaves to BuildKit and we do is BuildKit's: heredocs, `--chmod`, `--exclude`, `--parents`, `--link`, the network and
//! the mounts of a `RUN`, arguments that tell the platform, stages that nothing needs.
//!
//! Deliberately not here: files, images, containers (all `engine`), the language (`dockerfile`).

pub mod attest;
pub mod cache;
pub mod early;
pub mod go;
pub mod modes;
pub mod mounts;
pub mod plan;
pub mod ports;
pub mod provenance;
pub mod sbom;
pub mod shared;
pub mod stage;

mod args;

pub use args::{Arguments, Platforms};
pub use plan::{Base, Plan, PlanError, PlannedStage, Wanted, plan};
pub use stage::{Operation, RunStep, Stage, Step, StepError};
