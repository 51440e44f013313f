//! qemu: one machine, from its start to its end.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::process;

use super::boot::Boot;

/// What the machine is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) boot: Boot,
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    /// Where the kernel's messages go.
    pub(super) console: PathBuf,
    pub(super) processors: usize,
}

/// The tests' files are in memory.
const MEMORY: &str = "3G";

/// `quiet` keeps what every boot says off the console; a kernel that panics ends the machine, which does not start again.
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet panic=-1 mitigations=off";

impl Machine {
    /// Without KVM: it is not everywhere, and where tests run in a virtual machine it often does not work.
    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", MEMORY]);
        command.arg("-smp").arg(self.processors.to_string());
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initramfs);
        command.arg("-append").arg(format!("{KERNEL_OPTIONS} {}", self.boot.options()));
        command.arg("-serial").arg(format!("file:{}", self.console.display()));
        command.args(["-serial", "stdio"]);
        let host = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap";
        command.args(["-virtfs", host]);
        command
    }

    /// Starts it, hands over what its second serial port says, line by line, and waits for its end.
    ///
    /// After `deadline` it is killed, and that is an error.
    pub(super) fn run(&self, deadline: Duration, mut line: impl FnMut(String) + Send) -> Result<()> {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running(command.spawn().with_context(|| format!("start {command:?}"))?);
        let output = BufReader::new(running.0.stdout.take().context("stdout is piped")?);
        std::thread::scope(|scope| {
            // Ends with the machine, whose end closes the pipe.
            scope.spawn(move || output.split(b'\n').map_while(Result::ok).for_each(|bytes| line(text(&bytes))));
            let status = process::wait(&mut running.0, deadline).context("the virtual machine")?;
            ensure!(status.success(), "the virtual machine: {status}");
            Ok(())
        })
    }
}

/// Terminals end lines with a carriage return.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned()
}

/// Ends with us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // After its end both fail, rightly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
