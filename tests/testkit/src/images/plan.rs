//! What is in an image: pure values.

/// A whole image before it is an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `repository:tag`.
    pub tag: String,
    /// The lowest layer first.
    pub layers: Vec<Vec<Entry>>,
    /// The default command.
    pub command: Vec<String>,
    /// Paths that are volumes.
    pub volumes: Vec<String>,
}

/// One tar entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative path; directories without a final slash.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Extended attributes, written as `SCHILY.xattr.*` PAX records.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file with this content.
    File(Vec<u8>),
    /// Another name of the entry with this path.
    Hardlink(String),
    /// A symbolic link with this target.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A file with holes.
    Sparse {
        /// How the archive says where the holes are.
        format: SparseFormat,
        /// Offset and content of each piece, ascending.
        pieces: Vec<(u64, Vec<u8>)>,
        /// Apparent length in bytes.
        size: u64,
    },
}

/// How an archive says where a file's holes are (GNU tar manual, "Storing Sparse Files").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparseFormat {
    /// An entry type of its own, with at most four pieces in the header. Docker refuses it (moby's archive package
    /// does not know the type `S`), other engines read it.
    OldGnu,
    /// PAX records, version 1.0: what `tar --sparse --format=posix` writes.
    Pax,
}

impl Entry {
    /// An entry of root's without extended attributes.
    pub fn new(path: &str, mode: u32, kind: Kind) -> Entry {
        Entry { path: path.to_owned(), kind, mode, uid: 0, gid: 0, xattrs: Vec::new() }
    }

    /// A directory of root's.
    pub fn dir(path: &str, mode: u32) -> Entry {
        Entry::new(path, mode, Kind::Directory)
    }

    /// A file of root's with mode 0644.
    pub fn file(path: &str, content: &str) -> Entry {
        Entry::new(path, 0o644, Kind::File(content.as_bytes().to_vec()))
    }

    /// A whiteout: the next lower layer's `name` in `dir` is gone (image-spec v1.1 layer.md, "Whiteouts").
    pub fn whiteout(dir: &str, name: &str) -> Entry {
        Entry::file(&format!("{dir}/.wh.{name}"), "")
    }

    /// Hides everything that lower layers have in `dir` (image-spec v1.1 layer.md, "Opaque Whiteout").
    pub fn opaque(dir: &str) -> Entry {
        Entry::file(&format!("{dir}/.wh..wh..opq"), "")
    }

    fn owned_by(mut self, uid: u64, gid: u64) -> Entry {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    fn with_xattr(mut self, name: &str, value: &[u8]) -> Entry {
        self.xattrs.push((name.to_owned(), value.to_vec()));
        self
    }
}

/// `busybox:latest`: the static `binary`, one hard link per applet, and the little that programs expect of a root.
pub fn busybox(binary: Vec<u8>, applets: &[&str]) -> Image {
    let mut entries = vec![Entry::dir("bin", 0o755), Entry::new("bin/busybox", 0o755, Kind::File(binary))];
    let mut names: Vec<&str> = applets.iter().copied().filter(|name| !name.is_empty() && *name != "busybox").collect();
    names.sort_unstable();
    names.dedup();
    entries.extend(
        names.iter().map(|name| Entry::new(&format!("bin/{name}"), 0o755, Kind::Hardlink("bin/busybox".into()))),
    );
    for (dir, mode) in [("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("proc", 0o755), ("root", 0o700)] {
        entries.push(Entry::dir(dir, mode));
    }
    entries.push(Entry::file("etc/group", "root:x:0:\nnogroup:x:65534:\n"));
    entries.push(Entry::file(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    ));
    for (dir, mode) in [("sys", 0o755), ("tmp", 0o1777), ("var", 0o755), ("var/www", 0o755)] {
        entries.push(Entry::dir(dir, mode));
    }
    Image { tag: "busybox:latest".into(), layers: vec![entries], command: vec!["sh".into()], volumes: vec![] }
}

/// `layers:latest`: two layers that hold everything which an unpacker can get wrong and that Docker
/// unpacks. It has no program to run.
pub fn layers() -> Image {
    let lower = vec![
        Entry::dir("data", 0o755),
        Entry::file("data/deleted", "the upper layer removes me\n"),
        Entry::file("data/kept", "kept\n"),
        Entry::new("data/link", 0o644, Kind::Hardlink("data/kept".into())),
        Entry::new("data/null", 0o666, Kind::CharDevice { major: 1, minor: 3 }),
        Entry::new("data/pipe", 0o600, Kind::Fifo),
        Entry::file("data/owned", "owned\n").owned_by(1000, 1001),
        Entry::file("data/xattr", "xattr\n").with_xattr("user.longshore", b"value\0with zero"),
        Entry::new("data/setuid", 0o4755, Kind::File(b"setuid\n".to_vec())),
        sparse("data/sparse", SparseFormat::Pax),
        Entry::dir("opaque", 0o750),
        Entry::file("opaque/hidden", "hidden\n"),
        Entry::new("symlink", 0o777, Kind::Symlink("data/kept".into())),
    ];
    let upper = vec![
        Entry::whiteout("data", "deleted"),
        Entry::dir("opaque", 0o700),
        Entry::opaque("opaque"),
        Entry::file("opaque/visible", "visible\n"),
        // Its directory is only implied here: mode and owner come from the layer below.
        Entry::file("data/added", "added\n"),
    ];
    Image { tag: "layers:latest".into(), layers: vec![lower, upper], command: vec!["/none".into()], volumes: vec![] }
}

/// `volumes:latest`: busybox, and volumes where it has a directory and where it has nothing.
pub fn volumes(busybox: Image) -> Image {
    let upper = vec![
        Entry::dir("data", 0o750).owned_by(70, 71),
        Entry::file("data/file", "from the image\n").owned_by(70, 71),
        Entry::new("link", 0o777, Kind::Symlink("data".into())),
        Entry::file("file", "no directory\n"),
    ];
    let volumes = vec!["/data".into(), "/new".into()];
    Image { tag: "volumes:latest".into(), layers: [busybox.layers, vec![upper]].concat(), volumes, ..busybox }
}

/// `sparse:latest`: a sparse file in the format that Docker does not read.
pub fn old_sparse() -> Image {
    let layer = vec![sparse("sparse", SparseFormat::OldGnu)];
    Image { tag: "sparse:latest".into(), layers: vec![layer], command: vec!["/none".into()], volumes: vec![] }
}

/// 512 bytes `a`, a hole up to 1 MiB, 1024 bytes `z`.
fn sparse(path: &str, format: SparseFormat) -> Entry {
    let pieces = vec![(0, vec![b'a'; 512]), (1 << 20, vec![b'z'; 1024])];
    Entry::new(path, 0o644, Kind::Sparse { format, pieces, size: (1 << 20) + 1024 })
}
