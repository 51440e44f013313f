//! The language of Dockerfiles: from text to stages of instructions. Pure.
//!
//! ```text
//! text --lines::parse--> Tree: logical lines, split into name, flags and arguments
//!      --stages::parse-> Dockerfile: ARGs before the first FROM, stages of Instructions
//!                        Instruction::expand: the same with its variables replaced
//! .dockerignore --ignore::Patterns--> which paths of a context do not count
//! ```
//! What a text means, and what is said about a wrong one, is BuildKit's (frontend/dockerfile: parser, instructions, shell),
//! whose parser dockerd's own builder uses, too. A text comes from anybody: whatever it is, nothing here panics, and how
//! deep it nests, how long its variables get and how long their patterns take is bounded.
//!
//! Deliberately not here: what instructions do (`builder`), which stages are needed (`builder`), files.

mod budget;
mod expand;
mod fault;
mod flags;
mod git;
mod glob;
mod ignore;
mod instruction;
mod lines;
mod mounts;
mod pattern;
mod stages;
mod suggest;
mod times;
mod words;

pub use expand::{Escape, Lookup, expand, expand_words};
pub use fault::{Fault, ParseError};
pub use git::{GitAddress, GitAddressError};
pub use glob::glob_match;
pub use ignore::{PatternError, Patterns, ignored};
pub use instruction::{
    Arg, CommandLine, Files, HealthCheck, InlineFile, Instruction, Kind, Pair, Run, RunNetwork, parse_trigger,
};
pub use lines::EmptyContinuation;
pub use mounts::{Mount, MountKind, Sharing};
pub use stages::{Dockerfile, Stage, Wrong, parse, parse_partly};
pub use suggest::{meant, name_like};
