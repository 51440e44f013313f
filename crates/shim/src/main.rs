//! `longshore-shim`: see the page of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq(["--version"]) {
        println!("longshore-shim version {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if let Some(dir) = relay_directory() {
        return ended(shim::relay(dir.as_ref()));
    }
    let Some(arguments) = shim::Arguments::parse(std::env::args_os().skip(1)) else {
        eprintln!("usage: longshore-shim --dir DIRECTORY CONTAINER-ID");
        return ExitCode::from(2);
    };
    ended(shim::run(arguments))
}

/// `--relay DIRECTORY`: the program is the relay then, and nobody's shim.
fn relay_directory() -> Option<std::ffi::OsString> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == "--relay").then(|| arguments.next()).flatten()
}

fn ended(result: Result<(), shim::ShimError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("longshore-shim: {}", errdefs::chain(&err));
            ExitCode::FAILURE
        }
    }
}
