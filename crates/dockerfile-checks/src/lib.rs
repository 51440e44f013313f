//! What can be asked of a Dockerfile instead of building it: what its checks find, its targets, what one of them takes. Pure.
//!
//! ```text
//! Request: text, arguments, ... --Checking::begin--> Checking: what the text shows; images(): those it begins with
//!     what these images say ----Checking::finish--> Findings: warnings, why it is none, the outline of its target
//! Question, Findings ---------------------answer------> Answer: documents as clients know them, and their code
//! ```
//! Checks, their sentences, their order and their places are BuildKit's (v0.25: frontend/dockerfile, linter and
//! dockerfile2llb), and so are the documents (frontend/subrequests). [`rules`] says what there is to find; [`text`] finds
//! what the lines show by themselves, [`stages`] what the `FROM`s do, [`walk`] what follows from one instruction after the
//! other. Who has the images (the daemon, or a client that asks one) hands over what they say.
//!
//! A Dockerfile comes from anybody: warnings, what is copied for stages and what is compared for "did you mean" are bounded.
//!
//! Deliberately not here: the language (`dockerfile`), what instructions do (`builder`), images.

pub mod answer;
mod documents;
mod options;
mod outline;
mod print;
mod report;
mod rules;
mod stages;
mod text;
mod variables;
mod walk;

pub use dockerfile::parse;

pub use answer::{Answer, Question, QuestionError};
pub use options::{CheckOptions, OptionError};
pub use print::{print_errors, print_warnings, source};
pub use report::{Failure, Findings, Lines, Violation, Warning};
pub use rules::Rule;
pub use stages::{BaseImage, Checking, Images, Request, WantedImage};

#[cfg(test)]
mod tests;
