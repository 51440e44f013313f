//! A host that is reached by ssh, on this machine: Debian's sshd without a port, started for each connection by ssh itself.
//!
//! ```text
//! client --> ssh (a script in `bin`, with a configuration of the test's) --ProxyCommand--> sshd -i --> docker in `remote`
//! ```
//!
//! sshd wants a user and a directory of its own: it gets both in a mount namespace, and the machine stays as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{paths, process};

/// The host; its name is `target`.
#[derive(Debug)]
pub struct SshHost(TempDir);

impl SshHost {
    /// A host whose command `docker` is `docker`, and whose daemon listens on `socket`.
    pub fn new(docker: &Path, socket: &Path) -> Result<SshHost> {
        let host = SshHost(tempfile::Builder::new().prefix("ssh-").tempdir()?);
        for directory in ["bin", "remote"] {
            fs::create_dir(host.path(directory))?;
        }
        symlink(docker, host.path("remote/docker"))?;
        for key in ["key", "host"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(host.path(key));
            process::run(&mut keygen, b"")?.success().context("ssh-keygen")?;
        }
        fs::copy(host.path("key.pub"), host.path("authorized"))?;
        host.write("known", &format!("target {}", fs::read_to_string(host.path("host.pub"))?))?;
        let users = fs::read_to_string("/etc/passwd")?;
        host.write("passwd", &format!("{users}sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"))?;
        host.configure(socket)?;
        Ok(host)
    }

    /// What PATH begins with for clients that are to reach it.
    pub fn bin(&self) -> PathBuf {
        self.path("bin")
    }

    /// From now on nobody knows the host's key.
    pub fn forget_key(&self) -> Result<()> {
        self.write("known", "")
    }

    fn configure(&self, socket: &Path) -> Result<()> {
        let dir = self.0.path().display();
        let docker_host = format!("unix://{}", socket.display());
        self.write(
            "sshd_config",
            &format!(
                "HostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
                 PidFile none\nSetEnv PATH={dir}/remote:/usr/bin:/bin DOCKER_HOST={docker_host}\n"
            ),
        )?;
        self.write(
            "ssh_config",
            &format!(
                "Host target\n User root\n IdentityFile {dir}/key\n IdentitiesOnly yes\n UserKnownHostsFile {dir}/known\n \
                 StrictHostKeyChecking yes\n ProxyCommand {dir}/proxy\n"
            ),
        )?;
        let sshd = paths::program_of("openssh-server", "sshd")?;
        let libraries = paths::unpacked("libwrap0").join("usr/lib");
        let libraries =
            ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|name| libraries.join(name).display().to_string());
        let own = format!("mount -t tmpfs run /run && mkdir /run/sshd && mount --bind {dir}/passwd /etc/passwd");
        let start = format!("LD_LIBRARY_PATH={} exec {} -i -f {dir}/sshd_config", libraries.join(":"), sshd.display());
        self.script("proxy", &format!("exec unshare --mount sh -c '{own} && {start}'"))?;
        let ssh = paths::program("ssh").context("no ssh on this machine: apt-get install openssh-client")?;
        self.script("bin/ssh", &format!("exec {} -F {dir}/ssh_config \"$@\"", ssh.display()))
    }

    fn script(&self, name: &str, line: &str) -> Result<()> {
        self.write(name, &format!("#!/bin/sh\n{line}\n"))?;
        Ok(fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755))?)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.path(name), text)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
