//! One machine of its own with one runtime, or with one engine: prepared as files, run by the scripts beside this file.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::{paths, process};

use super::compare::Said;
use super::source;
use super::steps::{self, Step};

/// How long its end may take: everything in it is killed, its cgroups are removed.
const END: Duration = Duration::from_secs(60);

/// A lab that can be run once.
#[derive(Debug)]
pub(super) struct Lab {
    name: String,
    chroot: PathBuf,
    /// What it shares with us: scripts and steps, and what they said.
    shared: PathBuf,
    /// A runtime, or the directory of the programs of an engine.
    program: PathBuf,
    images: PathBuf,
}

/// A step was done.
#[derive(Debug)]
pub(super) struct Progress {
    /// Its file's name.
    pub(super) step: String,
}

impl Lab {
    /// Writes what it needs to `target/peers/PEER/NAME`, instead of what was there.
    pub(super) fn prepare(
        peer: &str,
        name: &str,
        chroot: &Path,
        program: &Path,
        images: &Path,
        steps: &[Step],
    ) -> Result<Lab> {
        let shared = paths::target().join("peers").join(peer).join(name);
        if shared.exists() {
            fs::remove_dir_all(&shared).with_context(|| format!("remove {}", shared.display()))?;
        }
        fs::create_dir_all(shared.join("steps"))?;
        for (script, copy) in [("run.sh", "run.sh"), ("common.sh", "common.sh"), (&format!("{peer}.sh"), "peer.sh")] {
            fs::copy(source(script), shared.join(copy)).with_context(|| format!("copy {script}"))?;
        }
        for (index, step) in steps.iter().enumerate() {
            fs::write(shared.join("steps").join(steps::file_name(index, step)), &step.script)?;
        }
        let name = format!("longshore-peers-{}-{name}", std::process::id());
        let [chroot, program, images] = [chroot, program, images].map(Path::to_owned);
        Ok(Lab { name, chroot, shared, program, images })
    }

    /// Runs all steps; what they say is in files. Blocks for minutes.
    pub(super) fn run(&self, progress: &Sender<Progress>) -> Result<()> {
        let log = self.shared.join("lab.log");
        let mut command = Command::new("bash");
        command.arg(source("supervise.sh")).arg(&self.name).arg("bash").arg(source("furnish.sh"));
        command.args([&self.chroot, &self.shared, &self.program, &self.images]);
        // Ctrl-C is for us alone: it ends the lab by closing its standard input.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn().context("start a lab")?;
        let told = BufReader::new(child.stdout.take().context("the lab's output")?);
        let outcome = self.follow(told, progress);
        drop(child.stdin.take());
        let status = process::wait(&mut child, END).context("the end of a lab")?;
        outcome?;
        ensure!(status.success(), "{}: {status}\n{}", self.name, fs::read_to_string(&log)?);
        Ok(())
    }

    fn follow(&self, told: impl BufRead, progress: &Sender<Progress>) -> Result<()> {
        for line in told.lines() {
            let line = line?;
            match line.split_once(' ') {
                Some(("step", step)) => progress.send(Progress { step: step.to_owned() })?,
                _ if line == "end" => return Ok(()),
                _ => bail!("{}: {line}\n{}", self.name, self.file("up.log")?),
            }
        }
        bail!("{} ended\n{}", self.name, fs::read_to_string(self.shared.join("lab.log"))?)
    }

    /// What a step that was done said.
    pub(super) fn said(&self, step: &str) -> Result<Said> {
        let [out, err, code] = ["out", "err", "code"].map(|part| self.file(&format!("{step}.{part}")));
        Ok(Said { out: out?, err: err?, code: code?.trim().to_owned() })
    }

    fn file(&self, name: &str) -> Result<String> {
        let path = self.shared.join("said").join(name);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
