//! `longshore-shim`: see the page of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq(["--version"]) {
        println!("longshore-shim version {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = shim::Arguments::parse(std::env::args_os().skip(1)) else {
        eprintln!("usage: longshore-shim --dir DIRECTORY CONTAINER-ID");
        return ExitCode::from(2);
    };
    match shim::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("longshore-shim: {}", errdefs::chain(&err));
            ExitCode::FAILURE
        }
    }
}
