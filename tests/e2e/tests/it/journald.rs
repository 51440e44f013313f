//! The log driver `journald`, with a journal that the test is.
//!
//! Only the daemon of the test, and what it starts, see the journal's socket in its place: they live in a mount namespace
//! with another `/run`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use testkit::images::Archive;
use testkit::process::DEADLINE;
use testkit::{Daemon, paths};

use crate::support::each;

/// Programs like ours, of which the daemon finds `socket` where a journal listens.
fn programs(directory: &Path, socket: &Path) {
    let real = paths::dist();
    for entry in fs::read_dir(&real).unwrap() {
        let name = entry.unwrap().file_name();
        if name != "longshored" {
            symlink(real.join(&name), directory.join(&name)).unwrap();
        }
    }
    let (daemon, socket) = (real.join("longshored"), socket.display());
    let script = format!(
        "#!/bin/sh\nexec unshare --mount --propagation slave sh -e -c '\nmount -t tmpfs tmpfs /run\n\
         mkdir -p /run/systemd/journal\n: > /run/systemd/journal/socket\n\
         mount --bind {socket} /run/systemd/journal/socket\nexec {} \"$@\"' longshored \"$@\"\n",
        daemon.display()
    );
    fs::write(directory.join("longshored"), script).unwrap();
    fs::set_permissions(directory.join("longshored"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// The next message: the journal's native protocol, without values of several lines.
fn message(journal: &UnixDatagram) -> BTreeMap<String, String> {
    let mut bytes = vec![0; 64 << 10];
    let length = journal.recv(&mut bytes).unwrap();
    let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn privileged_lines_go_to_the_journal_with_dockers_fields() {
    if testkit::skip::without_root() {
        return;
    }
    if std::env::var_os(testkit::daemon::HOST_VARIABLE).is_some() {
        return testkit::skip::report("the journal of another daemon is not the test's");
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal.set_read_timeout(Some(DEADLINE)).unwrap();
    let dist = directory.path().join("dist");
    fs::create_dir(&dist).unwrap();
    programs(&dist, &socket);
    let daemon = Daemon::start_from(&dist, &[]).unwrap();
    daemon.load(Archive::Busybox).unwrap();
    each(&daemon, |at| {
        assert!(at.ok("info -f '{{json .Plugins.Log}}'").contains("\"journald\""));
        let name = at.name("journal");
        let options = "--log-driver journald --log-opt tag={{.Name}}/it --log-opt labels=com.a --label com.a=b";
        let line = format!("run --network none {options} --name {name} busybox sh -c 'echo out; read x; echo err >&2'");
        let output = at.with_input(&line.replace("run ", "run -i "), b"go\n");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
        let id = at.inspect(&name, "{{.Id}}");
        let tag = format!("{name}/it");
        for (ordinal, text, priority) in [("1", "out", "6"), ("2", "err", "3")] {
            let fields = message(&journal);
            for (field, value) in [
                ("MESSAGE", text),
                ("PRIORITY", priority),
                ("CONTAINER_ID", &id[..12]),
                ("CONTAINER_ID_FULL", &id),
                ("CONTAINER_NAME", &name),
                ("CONTAINER_TAG", &tag),
                ("SYSLOG_IDENTIFIER", &tag),
                ("IMAGE_NAME", "busybox"),
                ("COM_A", "b"),
                ("CONTAINER_LOG_ORDINAL", ordinal),
            ] {
                assert_eq!(fields.get(field).map(String::as_str), Some(value), "{field}: {fields:?}");
            }
        }
        assert_eq!(at.line(&format!("logs {name}")).stdout, "out\n");
        at.remove(&name);
    });
}
