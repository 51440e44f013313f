//! The programs beside the daemon, and their versions: an update may have replaced one of them and not the others.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use engine_api::system::Component;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::debug;

use crate::Engine;

/// How long each of them may take to say who it is: it prints one line.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How much of what it says is read.
const SAID_MAX_BYTES: u64 = 4096;

/// What each program said last, if it did, and the age of its file then: nobody is asked twice.
static KNOWN: Mutex<BTreeMap<PathBuf, (SystemTime, Option<String>)>> = Mutex::new(BTreeMap::new());

/// The programs that are there, in the order in which a container meets them. Those that do not answer are left out.
pub(crate) async fn components(engine: &Engine) -> Vec<Component> {
    let (shim, init) = (engine.config.shim_path.clone(), engine.config.init_path.clone());
    let runtime = shim.with_file_name("longshore-runtime");
    bridge::blocking(move || [shim, runtime, init].iter().filter_map(|path| component(path)).collect()).await
}

fn component(path: &Path) -> Option<Component> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let changed = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    let version = match known {
        Some((then, version)) if then == changed => version,
        _ => {
            let said = ask(path, TIMEOUT);
            let version = said.inspect_err(|err| debug!("ask {} for its version: {err}", path.display())).ok();
            let version = version.as_deref().and_then(version_in);
            let entry = (changed, version.clone());
            KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), entry);
            version
        }
    };
    // Docker's programs have one, too, and clients print it.
    let details = BTreeMap::from([("GitCommit".to_owned(), String::new())]);
    Some(Component { name, version: version?, details })
}

/// What a program says of its version. One that does not end is ended.
fn ask(path: &Path, timeout: Duration) -> io::Result<String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|pidfd| sys::wait::readable(pidfd.as_fd(), Instant::now() + timeout));
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    let mut said = Vec::new();
    if let Some(output) = child.stdout.take().filter(|_| status.success()) {
        output.take(SAID_MAX_BYTES).read_to_end(&mut said)?;
    }
    ended.map(|_| String::from_utf8_lossy(&said).into_owned())
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
    fn a_program_that_does_not_answer_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("silent");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(ask(&program, Duration::from_millis(50)).unwrap(), "");
        assert!(ask(Path::new("/nosuch/program"), TIMEOUT).is_err());
    }

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
