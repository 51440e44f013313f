//! `info`.

use super::Context;
use crate::args::Parsed;
use crate::report::Exit;

/// `info`
pub async fn run(_context: &Context, _parsed: &Parsed) -> Result<(), Exit> {
    Ok(())
}
