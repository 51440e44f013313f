//! Real containers, made and taken away by the library.

mod fixture;
mod lifecycle;
