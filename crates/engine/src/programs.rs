//! The programs beside the daemon, and their versions: an update may have replaced one of them and not the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use engine_api::system::Component;
use tracing::debug;

use crate::Engine;

/// How long all of them may take to say who they are: they print one line.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What each program said last, and the age of its file then: nobody is asked twice.
static KNOWN: Mutex<BTreeMap<PathBuf, (SystemTime, String)>> = Mutex::new(BTreeMap::new());

/// The programs that are there, in the order in which a container meets them. Those that do not answer are left out.
pub(crate) async fn components(engine: &Engine) -> Vec<Component> {
    let (shim, init) = (engine.config.shim_path.clone(), engine.config.init_path.clone());
    let runtime = shim.with_file_name("longshore-runtime");
    let asked = bridge::blocking(move || [shim, runtime, init].iter().filter_map(|path| component(path)).collect());
    tokio::time::timeout(TIMEOUT, asked).await.unwrap_or_default()
}

fn component(path: &Path) -> Option<Component> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let changed = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    let version = match known {
        Some((then, version)) if then == changed => version,
        _ => {
            let version = ask(path)?;
            let entry = (changed, version.clone());
            KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), entry);
            version
        }
    };
    // Docker's programs have one, too, and clients print it.
    let details = BTreeMap::from([("GitCommit".to_owned(), String::new())]);
    Some(Component { name, version, details })
}

fn ask(path: &Path) -> Option<String> {
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => version_in(&String::from_utf8_lossy(&output.stdout)),
        Ok(_) => None,
        Err(err) => {
            debug!("ask {} for its version: {err}", path.display());
            None
        }
    }
}

/// `1.2` of `program version 1.2`, which may go on: Docker's init has ` - git.de40ad0` behind it.
fn version_in(said: &str) -> Option<String> {
    let (_, rest) = said.lines().next()?.split_once(" version ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            ("longshore-init version 0.1.0\n", Some("0.1.0")),
            ("tini version 0.19.0 - git.de40ad0\n", Some("0.19.0")),
            ("runc version 1.3.6+ds1\ncommit: 1\n", Some("1.3.6+ds1")),
            ("usage: init\n", None),
            ("", None),
        ] {
            assert_eq!(version_in(said).as_deref(), version, "{said}");
        }
    }
}
