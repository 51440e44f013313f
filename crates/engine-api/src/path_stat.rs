//! What there is at a path in a container: a header of `/containers/{id}/archive`.

use serde::{Deserialize, Serialize};

use crate::auth;

/// The header's name.
pub const HEADER: &str = "x-docker-container-path-stat";

/// Go's bit of a directory (`io/fs`, `FileMode`), and of the other kinds of files and bits of their modes.
pub const DIRECTORY: u32 = 1 << 31;
/// See [`DIRECTORY`].
pub const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SET_UID: u32 = 1 << 23;
const SET_GID: u32 = 1 << 22;
const CHARACTER_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;

/// What is at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's `FileMode`.
    pub mode: u32,
    /// RFC 3339.
    pub mtime: String,
    /// Where a symlink leads in the end, from the root.
    pub link_target: String,
}

impl PathStat {
    /// As the header has it.
    pub fn to_header(&self) -> String {
        let json = serde_json::to_vec(self).expect("wire types have string keys and no failing serializers");
        auth::encode_standard(&json)
    }

    /// Reads the header.
    pub fn from_header(text: &str) -> Option<PathStat> {
        serde_json::from_slice(&auth::decode(text)?).ok()
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & DIRECTORY != 0
    }

    /// Whether it is a symlink.
    pub fn is_symlink(&self) -> bool {
        self.mode & SYMLINK != 0
    }

    /// Whether it is a device.
    pub fn is_device(&self) -> bool {
        self.mode & DEVICE != 0
    }

    /// Whether it is neither a directory nor a file, nor a symlink.
    pub fn is_special(&self) -> bool {
        self.mode & (DEVICE | NAMED_PIPE | SOCKET | IRREGULAR) != 0
    }
}

/// Go's `FileMode` of a `st_mode`.
pub fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o100_000 => 0,
        0o040_000 => DIRECTORY,
        0o120_000 => SYMLINK,
        0o020_000 => DEVICE | CHARACTER_DEVICE,
        0o060_000 => DEVICE,
        0o010_000 => NAMED_PIPE,
        0o140_000 => SOCKET,
        _ => IRREGULAR,
    };
    let bit = |unix: u32, go: u32| if mode & unix != 0 { go } else { 0 };
    kind | mode & 0o777 | bit(0o4000, SET_UID) | bit(0o2000, SET_GID) | bit(0o1000, STICKY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        for (mode, wanted) in [
            (0o040_755, 2_147_484_141),
            (0o120_777, 134_218_239),
            (0o100_644, 420),
            (0o010_644, 33_554_852),
            (0o041_777, 2_148_532_735),
            (0o104_755, 8_389_101),
            (0o020_600, 69_206_400),
        ] {
            assert_eq!(go_mode(mode), wanted, "{mode:o}");
        }
    }

    #[test]
    fn headers_are_written_and_read() {
        let stat = PathStat { name: "\u{ff}??>".into(), mode: DIRECTORY, ..PathStat::default() };
        assert_eq!(PathStat::from_header(&stat.to_header()), Some(stat.clone()));
        assert!(stat.is_directory() && !stat.is_symlink());
        let json = "{\"name\":\"/\",\"size\":4096,\"mode\":1,\"mtime\":\"\",\"linkTarget\":\"\"}";
        let stat = PathStat { name: "/".into(), size: 4096, mode: 1, ..PathStat::default() };
        assert_eq!(auth::decode(&stat.to_header()).unwrap(), json.as_bytes());
        assert_eq!(PathStat::from_header("!"), None);
    }
}
