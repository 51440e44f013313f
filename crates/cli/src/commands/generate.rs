//! `completion` and `man`: what the shells and manual readers need, made from the tables.

use std::fs;
use std::path::Path;

use clap_complete::Shell;

use super::Context;
use crate::args::Parsed;
use crate::args::clap_tree::{self, Reader};
use crate::complete::scripts;
use crate::report::{Exit, go_error};
use crate::say;

/// `completion`
pub fn completion(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let name = parsed.positionals.first().map(String::as_str).unwrap_or("");
    let Some(shell) = scripts::SHELLS.contains(&name).then(|| name.parse::<Shell>().ok()).flatten() else {
        let known = scripts::SHELLS.join(", ");
        return Err(Exit::new(1, format!("no completion for shell {name:?}: {known}")));
    };
    if let Some(script) = scripts::of(name, context.program) {
        say!("{script}");
        return Ok(());
    }
    let mut program = clap_tree::program(context.program, Reader::Shell);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, context.program, &mut script);
    say!("{}", String::from_utf8_lossy(&script));
    Ok(())
}

/// `man`
pub fn man(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let directory = Path::new(parsed.positionals.first().map(String::as_str).unwrap_or("."));
    let program = clap_tree::program(context.program, Reader::Person);
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(program, directory));
    written.map_err(|err| Exit::new(1, format!("write manual pages to {}: {}", directory.display(), go_error(&err))))
}
