//! A firewalld of the test's own, on a bus of its own: in the calling thread's network namespace, with files in a scratch directory.
//!
//! Its own `/run` is a file system of its own, so that nothing of it is on the machine.

use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use dbus::{Call, Connection, Value};
use rustix::process::{Pid, Signal};

use crate::paths::{self, unpacked};
use crate::process::{self, DEADLINE};

/// Debian's, which has the modules that firewalld needs.
const PYTHON: &str = "/usr/bin/python3";
const NAME: &str = "org.fedoraproject.FirewallD1";
const OBJECT: &str = "/org/fedoraproject/FirewallD1";

/// A message bus, as that of a machine.
#[derive(Debug)]
pub struct Bus {
    process: Child,
    directory: tempfile::TempDir,
}

impl Bus {
    /// Starts one that lets firewalld have its name.
    pub fn start() -> Result<Bus> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let policy = unpacked("firewalld").join("usr/share/dbus-1/system.d/FirewallD.conf");
        ensure!(policy.exists(), "no firewalld: `cargo xtask test` unpacks Debian's package");
        fs::write(path("bus.conf"), configuration(&path("bus"), &policy))?;
        let program = paths::program("dbus-daemon").context("Debian's package dbus-daemon")?;
        let mut command = Command::new(program);
        command.arg(format!("--config-file={}", path("bus.conf").display())).args(["--nofork", "--nopidfile"]);
        let mut process = command.spawn().context("start dbus-daemon")?;
        let there = || UnixStream::connect(path("bus")).ok();
        if let Err(err) = process::until("the bus is there", DEADLINE, there) {
            process.kill()?;
            process.wait()?;
            return Err(err);
        }
        Ok(Bus { process, directory })
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("bus")
    }

    /// The same as `DBUS_SYSTEM_BUS_ADDRESS` has it.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    fn connect(&self) -> Result<Connection> {
        Ok(Connection::open(&self.socket(), true, Instant::now() + DEADLINE)?)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the system's bus of Debian has, as far as it concerns firewalld.
fn configuration(socket: &Path, policy: &Path) -> String {
    format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>{}</include>
</busconfig>
"#,
        socket.display(),
        policy.display()
    )
}

/// A firewalld that runs, or was killed.
#[derive(Debug)]
pub struct Firewalld {
    process: Option<Child>,
    bus: Bus,
    directory: tempfile::TempDir,
}

impl Firewalld {
    /// Starts a bus, and one on it whose default zone is this one; returns when it answers.
    pub fn start(default_zone: &str) -> Result<Firewalld> {
        let mut firewalld = Firewalld::prepare(default_zone)?;
        firewalld.run()?;
        Ok(firewalld)
    }

    /// A bus alone, until [`Firewalld::run`].
    pub fn prepare(default_zone: &str) -> Result<Firewalld> {
        let directory = tempfile::tempdir()?;
        for name in ["zones", "policies", "services", "icmptypes", "ipsets", "helpers"] {
            fs::create_dir(directory.path().join(name))?;
        }
        let settings = format!("DefaultZone={default_zone}\nFirewallBackend=nftables\n");
        fs::write(directory.path().join("firewalld.conf"), settings)?;
        Ok(Firewalld { process: None, bus: Bus::start()?, directory })
    }

    /// Starts it, and returns when it answers.
    pub fn run(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        // What it keeps below /run is the test's own.
        let own_run = "mount -t tmpfs tmpfs /run && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", own_run, "sh", PYTHON]);
        command.arg(unpacked("firewalld").join("usr/sbin/firewalld"));
        command.args(["--nofork", "--nopid", "--log-target", "console", "--system-config"]).arg(self.directory.path());
        command.arg("--default-config").arg(unpacked("firewalld").join("usr/lib/firewalld"));
        self.environment(&mut command).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn().context("start firewalld")?);
        // While nobody has the name the bus answers at once with an error.
        let answers = || self.ask(OBJECT, NAME, "getDefaultZone", &[]).ok();
        process::until("firewalld answers", DEADLINE, answers)
            .map(drop)
            .with_context(|| format!("firewalld printed:\n{}", fs::read_to_string(self.log()).unwrap_or_default()))
    }

    /// Ends it. After SIGTERM nothing of it is in the kernel; after SIGKILL all is, and the next one puts its own on top.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let mut process = self.process.take().context("firewalld does not run")?;
        process::wait(&mut process, DEADLINE)?;
        Ok(())
    }

    /// Stops and continues it as a terminal would: while it is stopped it answers nobody.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("firewalld does not run")?;
        Ok(rustix::process::kill_process(Pid::from_child(process), signal)?)
    }

    /// The bus that it is on.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// firewall-cmd(1).
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(PYTHON);
        command.arg(unpacked("firewalld").join("usr/bin/firewall-cmd")).args(arguments);
        let output = process::run(self.environment(&mut command), b"")?;
        Ok(output.success().with_context(|| format!("firewall-cmd {arguments:?}"))?.to_owned())
    }

    /// The interfaces of a zone; none of one that is not there.
    pub fn interfaces(&self, zone: &str) -> Result<Vec<String>> {
        if !self.zones()?.iter().any(|one| one == zone) {
            return Ok(Vec::new());
        }
        self.ask(OBJECT, &format!("{NAME}.zone"), "getInterfaces", &[Value::Text(zone.to_owned())])
    }

    /// The zones that are in force.
    pub fn zones(&self) -> Result<Vec<String>> {
        self.ask(OBJECT, &format!("{NAME}.zone"), "getZones", &[])
    }

    fn ask(&self, path: &str, interface: &str, member: &str, body: &[Value]) -> Result<Vec<String>> {
        Ok(self.bus.connect()?.call(&Call { destination: NAME, path, interface, member, body })?.texts)
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let modules = ["python3-firewall", "python3-nftables"].map(|package| unpacked(package).join(MODULES));
        let modules = modules.map(|path| path.display().to_string()).join(":");
        command.env("PYTHONPATH", modules).env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address())
    }
}

const MODULES: &str = "usr/lib/python3/dist-packages";

impl Drop for Firewalld {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Somebody at a bus's place who takes every connection and never says a word.
#[derive(Debug)]
pub struct SilentBus {
    _listener: UnixListener,
    directory: tempfile::TempDir,
}

impl SilentBus {
    /// Listens; the kernel accepts for it.
    pub fn start() -> Result<SilentBus> {
        let directory = tempfile::tempdir()?;
        Ok(SilentBus { _listener: UnixListener::bind(directory.path().join("bus"))?, directory })
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("bus")
    }
}
