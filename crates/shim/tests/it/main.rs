//! The real program over its socket pair, with real containers.

mod attach;
mod exec;
mod fixture;
mod life;
mod log;
