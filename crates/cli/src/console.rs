//! Standard output and error, for texts that are known as a whole.
//!
//! The standard library's `println!` panics when nobody reads (`longshore ps | head -1`).

use std::fmt::Arguments;
use std::io::{self, Write};

/// What a shell sees of a program that SIGPIPE killed, which is how Docker's client ends here.
pub const BROKEN_PIPE_STATUS: u8 = 128 + 13;

/// Prints to standard output; ends the process if nobody reads any more.
pub fn print(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    end_without_reader(out.write_fmt(text).and_then(|()| out.flush()));
}

fn end_without_reader(written: io::Result<()>) {
    let Err(err) = written else { return };
    if err.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(i32::from(BROKEN_PIPE_STATUS));
    }
    warn(format_args!("write to standard output: {err}\n"));
    std::process::exit(1);
}

/// Writes bytes to standard output; ends the process if nobody reads any more.
pub fn write(bytes: &[u8]) {
    end_without_reader(io::stdout().lock().write_all(bytes));
}

/// Prints to standard error.
pub fn warn(text: Arguments<'_>) {
    // There is no better place to say that standard error is closed.
    let _ = io::stderr().lock().write_fmt(text);
}

/// `print!`, without the panic.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::console::print(format_args!($($text)*)) };
}

/// `println!`, without the panic.
#[macro_export]
macro_rules! say_line {
    ($($text:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// `eprintln!`, without the panic.
#[macro_export]
macro_rules! warn_line {
    ($($text:tt)*) => { $crate::console::warn(format_args!("{}\n", format_args!($($text)*))) };
}
