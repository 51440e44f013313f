//! Where a shim keeps its files.

use std::path::{Path, PathBuf};

use oci::ContainerId;

/// `<exec-root>/containers/<id>`.
pub fn dir(exec_root: &Path, id: &ContainerId) -> PathBuf {
    exec_root.join("containers").join(id.as_str())
}

/// The socket in a shim's directory. Connect through /proc/self/fd where the path is longer than 107 bytes.
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("shim.sock")
}

/// The [`crate::RunState`] in a shim's directory.
pub fn state(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

/// The [`crate::ExitFile`] in a shim's directory.
pub fn exit(dir: &Path) -> PathBuf {
    dir.join("exit.json")
}
