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

/// A host of repositories: sshd at a port of its own, of 127.0.0.1.
#[derive(Debug)]
pub struct GitHost {
    directory: TempDir,
    port: u16,
    sshd: std::process::Child,
}

impl GitHost {
    /// Starts one that gives what is below `served` to the key `key`.
    pub fn start(served: &Path) -> Result<GitHost> {
        let directory = tempfile::Builder::new().prefix("git-ssh-").tempdir()?;
        let path = |name: &str| directory.path().join(name);
        for key in ["key", "host"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key));
            process::run(&mut keygen, b"")?.success().context("ssh-keygen")?;
        }
        fs::copy(path("key.pub"), path("authorized"))?;
        let users = fs::read_to_string("/etc/passwd")?;
        fs::write(path("passwd"), format!("{users}sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"))?;
        fs::write(path("gitconfig"), "[safe]\n\tdirectory = *\n")?;
        // Bound and let go: nobody else is given it soon.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = directory.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nStrictModes no\n\
             UsePAM no\nPermitRootLogin yes\nPidFile none\nSetEnv PATH=/usr/bin:/bin GIT_CONFIG_GLOBAL={dir}/gitconfig\n"
        );
        fs::write(path("sshd_config"), config)?;
        let program = paths::program_of("openssh-server", "sshd")?;
        let libraries = paths::unpacked("libwrap0").join("usr/lib");
        let libraries =
            ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|name| libraries.join(name).display().to_string());
        let own = format!("mount -t tmpfs run /run && mkdir /run/sshd && mount --bind {dir}/passwd /etc/passwd");
        let start = format!("exec {} -D -e -f {dir}/sshd_config 2>{dir}/log", program.display());
        anyhow::ensure!(!served.starts_with("/run"), "nobody sees {} there", served.display());
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", &format!("{own} && {start}")]);
        let sshd = unshare.env("LD_LIBRARY_PATH", libraries.join(":")).spawn()?;
        let host = GitHost { directory, port, sshd };
        process::until("sshd listens", process::DEADLINE, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())
        })?;
        Ok(host)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file of its own: `key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for GitHost {
    fn drop(&mut self) {
        // One that has ended already is no loss.
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}
