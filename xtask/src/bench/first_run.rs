//! A command line when no daemon runs: the client starts one on the default socket.
//!
//! The default paths are the machine's own. A mount namespace with an empty /run and /var/lib/longshore keeps the
//! samples away from an installed Longshore: a holder process owns it, nsenter(1) runs each command inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use testkit::images::Archive;
use testkit::process;

use super::engine::Sample;
use crate::step::quiet;

/// Runs `line` with our client `runs` times, each time without a daemon; the time includes nsenter's, about 1 ms.
pub(super) fn samples(dist: &Path, line: &[&str], runs: usize) -> Result<Vec<Sample>> {
    let inside = Namespace::new(dist)?;
    let image = Archive::Busybox.path()?.display().to_string();
    quiet(&mut inside.longshore(&["load", "-i", &image]))?;
    let mut samples = Vec::new();
    for _ in 0..runs {
        inside.end_daemon()?;
        let begin = Instant::now();
        quiet(&mut inside.longshore(line))?;
        samples.push(Sample { wall: begin.elapsed(), cpu: Duration::ZERO });
    }
    inside.end_daemon()?;
    Ok(samples)
}

struct Namespace {
    holder: Child,
    dist: PathBuf,
}

impl Namespace {
    fn new(dist: &Path) -> Result<Namespace> {
        fs::create_dir_all("/var/lib/longshore")?;
        let script = "mount -t tmpfs none /run && mount -t tmpfs none /var/lib/longshore && echo ready && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start unshare")?;
        let mut ready = [0; 6];
        let mut output = holder.stdout.take().context("stdout is piped")?;
        std::io::Read::read_exact(&mut output, &mut ready).context("mounts in the namespace")?;
        Ok(Namespace { holder, dist: dist.to_owned() })
    }

    fn longshore(&self, line: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.holder.id().to_string(), "--"]);
        command.arg(self.dist.join("longshore")).args(line);
        // A user's configuration could name another host.
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("DOCKER_CONFIG", "/run/no-configuration");
        command
    }

    /// Ends the daemon that a client started in here, and waits until it is gone.
    fn end_daemon(&self) -> Result<()> {
        for pid in self.daemons()? {
            // It may end by itself when idle.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        process::until("no daemon in the namespace", process::DEADLINE, || {
            self.daemons().is_ok_and(|left| left.is_empty()).then_some(())
        })
    }

    fn daemons(&self) -> Result<Vec<Pid>> {
        let own = fs::read_link(format!("/proc/{}/ns/mnt", self.holder.id()))?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let dir = entry?.path();
            let here = fs::read_link(dir.join("ns/mnt")).is_ok_and(|namespace| namespace == own);
            let daemon = fs::read_to_string(dir.join("comm")).is_ok_and(|comm| comm.trim() == "longshored");
            let pid = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            if let (true, true, Some(pid)) = (here, daemon, pid.and_then(Pid::from_raw)) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let ended = self.end_daemon();
        // The holder reads its input to the end: killing it is only quicker.
        let killed = self.holder.kill().and_then(|()| self.holder.wait());
        if ended.is_err() || killed.is_err() {
            eprintln!("the namespace of first-run is left behind: {ended:?} {killed:?}");
        }
    }
}
