//! What has to be on the machine, and how it gets there.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use testkit::paths;

use crate::step::{quiet, step};

/// Something a command needs, Debian's package that has it, and how to see whether it is there.
struct Tool {
    package: &'static str,
    present: fn() -> bool,
}

const TOOLS: &[Tool] = &[
    Tool { package: "build-essential", present: || paths::program("cc").is_some() },
    // Profiles are compiled with it; containers start without it.
    Tool { package: "libseccomp-dev", present: || Path::new("/usr/include/seccomp.h").exists() },
    // Makes the certificates of tests.
    Tool { package: "openssl", present: || paths::program("openssl").is_some() },
    // Builds fetch repositories with it.
    Tool { package: "git", present: || paths::program("git").is_some() },
    Tool { package: "openssh-client", present: || paths::program("ssh").is_some() },
    Tool { package: "busybox-static", present: || paths::busybox().is_ok() },
    // Tests press the tabulator in them.
    Tool { package: "zsh", present: || paths::program("zsh").is_some() },
    Tool { package: "fish", present: || paths::program("fish").is_some() },
    // What tests make in network namespaces of their own, and see of what we make there.
    Tool { package: "iproute2", present: || paths::program("ip").is_some() },
    Tool { package: "nftables", present: || paths::program("nft").is_some() },
    // Gives ordinary users more ids of a user namespace.
    Tool { package: "uidmap", present: || paths::program("newuidmap").is_some() },
    // What firewalld is run with, which is unpacked itself; none of these starts anything.
    Tool { package: "dbus-daemon", present: || paths::program("dbus-daemon").is_some() },
    Tool { package: "python3-dbus", present: || has_python("dbus") },
    Tool { package: "python3-gi", present: || has_python("gi") },
    Tool { package: "procps", present: || paths::program("ps").is_some() },
    // Its musl-gcc links the static programs where the linker of the machine cannot.
    Tool { package: "musl-tools", present: || paths::program("musl-gcc").is_some() },
];

/// The target of the programs that stand beside every container.
pub(crate) const STATIC_TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-musl" } else { "x86_64-unknown-linux-musl" };

/// What the virtual machine needs besides.
const VM_TOOLS: &[Tool] = &[
    Tool { package: "qemu-system-x86", present: || paths::program("qemu-system-x86_64").is_some() },
    // Its `ip` and `rdma` make devices that limits are for.
    Tool { package: "iproute2", present: || paths::program("rdma").is_some() },
    // Compiles the policy of SELinux that tests put in force there.
    Tool { package: "secilc", present: || paths::program("secilc").is_some() },
    // Started by tests as a user's, in a cgroup of its own, and as the first process there; the machine need not run it.
    Tool { package: "systemd", present: || Path::new("/lib/systemd/systemd").exists() },
];

/// What other engines need besides: a root of Debian sid is made for them.
const PEER_TOOLS: &[Tool] = &[Tool { package: "mmdebstrap", present: || paths::program("mmdebstrap").is_some() }];

/// What the SDKs' tests need besides. Python's own packages come from Debian, too, which signs them.
const SDK_TOOLS: &[Tool] = &[
    Tool { package: "npm", present: || paths::program("npm").is_some() },
    Tool { package: "python3", present: || Path::new("/usr/bin/python3").exists() },
    Tool { package: "python3-paramiko", present: || has_python("paramiko") },
    Tool { package: "python3-pytest", present: || has_python("pytest") },
    Tool { package: "python3-pytest-timeout", present: || has_python("pytest_timeout.py") },
    Tool { package: "python3-requests", present: || has_python("requests") },
    Tool { package: "python3-websocket", present: || has_python("websocket") },
];

fn has_python(module: &str) -> bool {
    Path::new("/usr/lib/python3/dist-packages").join(module).exists()
}

/// Installs the packages that are missing; fails with the command to type when this user may not.
pub(crate) fn install() -> Result<()> {
    install_missing(TOOLS)
}

/// The same for the tests that run in a virtual machine.
pub(crate) fn install_for_vm() -> Result<()> {
    install()?;
    install_missing(VM_TOOLS)
}

/// The same for other engines.
pub(crate) fn install_for_peers() -> Result<()> {
    install()?;
    install_missing(PEER_TOOLS)
}

/// The same for the SDKs' tests.
pub(crate) fn install_for_sdks() -> Result<()> {
    install()?;
    install_missing(SDK_TOOLS)
}

fn install_missing(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&str> = tools.iter().filter(|tool| !(tool.present)()).map(|tool| tool.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() || paths::program("apt-get").is_none() {
        bail!("missing: {0}. On Debian: apt-get install -y {0}", missing.join(" "));
    }
    step(&format!("install {}", missing.join(" ")), || {
        quiet(apt().arg("update"))?;
        quiet(apt().args(["install", "-y", "--no-install-recommends"]).args(&missing))
    })?;
    Ok(())
}

/// `apt-get` that asks nothing.
pub(crate) fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-q").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Whether Rust's library for static programs is there, adding it if need be.
pub(crate) fn has_static_target() -> bool {
    let listed = quiet(Command::new("rustc").args(["--print", "sysroot"]).current_dir(paths::workspace()));
    let installed = |root: &str| Path::new(root.trim()).join("lib/rustlib").join(STATIC_TARGET).exists();
    if listed.as_deref().is_ok_and(installed) {
        return true;
    }
    let mut add = Command::new("rustup");
    let added = step(&format!("rustup target add {STATIC_TARGET}"), || {
        quiet(add.args(["target", "add", STATIC_TARGET]).current_dir(paths::workspace()))
    });
    added.is_ok()
}
