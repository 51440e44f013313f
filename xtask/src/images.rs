//! The archives that tests load (`testkit::images`), made anew.

use anyhow::Result;
use testkit::images::Archive;
use testkit::paths;

use crate::step::step;
use crate::tools;

/// Makes every archive in `target/images`.
pub(crate) fn run() -> Result<()> {
    tools::install()?;
    for archive in Archive::ALL {
        let path = paths::target().join("images").join(archive.file_name());
        step(&format!("make {}", path.display()), || archive.make(&path))?;
    }
    Ok(())
}
