//! `longshored install`: units for systemd, so that restart policies hold after boot and any client finds the socket.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::defaults;

/// Where administrators' units are.
pub(crate) const UNIT_DIR: &str = "/etc/systemd/system";

/// Why the units could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write {}", path.display())]
pub(crate) struct InstallError {
    path: PathBuf,
    source: io::Error,
}

/// Writes both units for the program at `program`, its socket owned by `group`; answers where they are.
pub(crate) fn install(dir: &Path, program: &Path, group: &str) -> Result<[PathBuf; 2], InstallError> {
    let units = [("longshored.service", service(program)), ("longshored.socket", socket(group))];
    let write = |(name, text): (&str, String)| {
        let path = dir.join(name);
        let written = fs::create_dir_all(dir).and_then(|()| fs::write(&path, text));
        written.map(|()| path.clone()).map_err(|source| InstallError { path, source })
    };
    let [service, socket] = units.map(write);
    Ok([service?, socket?])
}

/// `KillMode=process`: containers outlive the daemon. `Delegate=yes`: systemd leaves our cgroups alone. Behind firewalld, where
/// there is one: our bridges are in its zone before a container starts.
fn service(program: &Path) -> String {
    format!(
        "\
[Unit]
Description=Longshore container engine
After=network-online.target local-fs.target firewalld.service longshored.socket
Wants=network-online.target
Requires=longshored.socket

[Service]
Type=exec
ExecStart={} -H fd://
ExecReload=/bin/kill -s HUP $MAINPID
Restart=always
RestartSec=2
StartLimitBurst=3
LimitNOFILE=infinity
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
Delegate=yes
KillMode=process
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
",
        program.display()
    )
}

/// The socket has the owner and mode that the daemon would give it.
fn socket(group: &str) -> String {
    format!(
        "\
[Unit]
Description=Longshore container engine, API socket

[Socket]
ListenStream={}
SocketMode=0660
SocketUser=root
SocketGroup={group}

[Install]
WantedBy=sockets.target
",
        defaults::SOCKET
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let [service, socket] =
            install(&dir.path().join("system"), Path::new("/opt/bin/longshored"), "docker").unwrap();
        let service = fs::read_to_string(service).unwrap();
        for line in ["ExecStart=/opt/bin/longshored -H fd://", "KillMode=process", "Delegate=yes"] {
            assert!(service.lines().any(|found| found == line), "{line}");
        }
        let socket = fs::read_to_string(socket).unwrap();
        assert!(socket.contains("ListenStream=/run/longshore.sock\nSocketMode=0660\n"));
        assert!(socket.contains("SocketGroup=docker\n"));
    }
}
