//! Who may talk to the daemon, and who may read its files.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use testkit::Cli;

use crate::support::{At, ours};

/// The group that sockets belong to: `docker`, else `longshore`, else root's.
fn socket_group() -> u32 {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let gid = |name: &str| {
        let line = groups.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split(':').nth(1)?.parse().ok())
    };
    gid("docker").or_else(|| gid("longshore")).unwrap_or(0)
}

#[test]
fn privileged_the_socket_is_for_root_and_its_group() {
    ours(|daemon| {
        let meta = fs::symlink_metadata(daemon.socket()).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o660, 0, socket_group()));
    });
}

#[test]
fn privileged_state_is_for_root_alone() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        at.start("one", "busybox sleep 1000");
        let id = at.inspect("one", "{{.Id}}");
        let (exec_root, data_root) = (daemon.scratch().exec_root(), daemon.scratch().data_root());
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        for root in [&exec_root, &data_root] {
            assert_eq!(mode(root), 0o700, "{}", root.display());
            assert_eq!(mode(&root.join("containers")), 0o700, "{}", root.display());
        }
        // As in Docker, a remapped root may pass through it, could it come here.
        assert_eq!(mode(&data_root.join("containers").join(&id)), 0o710);
        let shim = exec_root.join("containers").join(&id);
        assert_eq!(mode(&shim), 0o700);
        for name in ["shim.sock", "state.json"] {
            assert_eq!(mode(&shim.join(name)), 0o600, "{name}");
        }
    });
}
