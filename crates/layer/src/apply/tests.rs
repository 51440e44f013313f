use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;

/// An archive in the making; headers beyond what the `tar` crate writes are made by hand.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Archive {
        Archive(tar::Builder::new(Vec::new()))
    }

    /// The name goes into the header as it is, which the `tar` crate would refuse for the interesting ones.
    fn entry(mut self, kind: tar::EntryType, path: &str, link: &str, data: &[u8]) -> Archive {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Archive {
        self.entry(tar::EntryType::Regular, path, "", data)
    }

    fn symlink(self, path: &str, target: &str) -> Archive {
        self.entry(tar::EntryType::Symlink, path, target, b"")
    }

    fn dir(self, path: &str) -> Archive {
        self.entry(tar::EntryType::Directory, path, "", b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Archive {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn apply_to(dir: &Path, archive: &[u8]) -> Result<Applied, ApplyError> {
    apply(archive, dir)
}

fn applied(archive: Archive) -> (tempfile::TempDir, Applied) {
    let dir = tempfile::tempdir().unwrap();
    let applied = apply_to(dir.path(), &archive.bytes()).unwrap();
    (dir, applied)
}

#[test]
fn privileged_nothing_is_made_outside_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap();
    let root = outside.path().join("a/root");
    let escapes = [
        Archive::new().file("../x", b"1"),
        Archive::new().file("a/../../x", b"1"),
        Archive::new().file(&format!("{out}/x"), b"1"),
        Archive::new().symlink("l", out).file("l/x", b"1"),
        Archive::new().symlink("l", "../..").file("l/x", b"1"),
        Archive::new().symlink("l", "/../../..").dir("l/x"),
        Archive::new().symlink("a", "b").symlink("b", "../../..").file("a/x", b"1"),
        Archive::new().entry(tar::EntryType::Link, "x", "../../../etc/passwd", b""),
        Archive::new().symlink("l", "/etc").entry(tar::EntryType::Link, "x", "l/passwd", b""),
        Archive::new().symlink("l", out).symlink("l/.wh.y", "x"),
        Archive::new().symlink("l", out).file("l/.wh..wh..opq", b""),
        Archive::new().file(".wh...", b""),
        Archive::new().file(".wh..", b""),
        Archive::new().file(".wh.", b""),
    ];
    for archive in escapes {
        fs::create_dir_all(&root).unwrap();
        // Refused or resolved within the root: both are right, and neither leaves it.
        let _ = apply_to(&root, &archive.bytes());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(outside.path().join("a")).unwrap().count(), 1);
        assert!(!root.join("x").exists() || !root.join("x/passwd").exists());
        assert!(!Path::new("/etc/.wh.y").exists());
        fs::remove_dir_all(&root).unwrap();
    }
}

#[test]
fn a_name_that_climbs_out_is_refused_with_docker_s_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let refused = apply_to(dir.path(), &Archive::new().file("../../x", b"1").bytes()).unwrap_err();
    assert_eq!(refused.to_string(), "invalid entry name \"../../x\"");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn privileged_symlinks_lead_within_the_root_as_in_a_chroot() {
    let archive = Archive::new()
        .symlink("lib", "/usr/lib")
        .file("lib/x", b"1")
        .symlink("usr/up", "../../../etc")
        .file("usr/up/y", b"2");
    let (dir, applied) = applied(archive);
    assert_eq!(fs::read(dir.path().join("usr/lib/x")).unwrap(), b"1");
    assert_eq!(fs::read(dir.path().join("etc/y")).unwrap(), b"2");
    let implied: Vec<&[u8]> = applied.implied.iter().map(Vec::as_slice).collect();
    assert_eq!(implied, [&b""[..], b"etc", b"usr", b"usr/lib"]);
}

#[test]
fn a_loop_of_symlinks_ends() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", b"1");
    assert!(matches!(apply_to(dir.path(), &archive.bytes()), Err(ApplyError::Create { .. })));
}

#[test]
fn privileged_every_kind_of_file_is_made_as_described() {
    let archive = Archive::new()
        .pax(&[
            ("SCHILY.xattr.user.note", b"hello"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            ("mtime", b"1234567890.123456789"),
            ("uid", b"100000"),
            ("gid", b"7"),
        ])
        .file("f", b"text")
        .entry(tar::EntryType::Link, "hard", "f", b"")
        .entry(tar::EntryType::Char, "null", "", b"")
        .entry(tar::EntryType::Fifo, "fifo", "", b"")
        .symlink("s", "nowhere")
        .dir("d");
    let (dir, applied) = applied(archive);
    let path = |name: &str| dir.path().join(name);
    let meta = fs::symlink_metadata(path("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.nlink()), (100_000, 7, 0o644, 2));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 123_456_789));
    let xattr = |name: &str| {
        let mut value = [0; 64];
        rustix::fs::lgetxattr(path("f"), name, &mut value[..]).map(|length| value[..length].to_vec())
    };
    assert_eq!(xattr("user.note").unwrap(), b"hello");
    assert_eq!(xattr("security.capability").unwrap().len(), 20);
    assert_eq!(xattr("trusted.overlay.redirect"), Err(Errno::NODATA));
    let null = fs::symlink_metadata(path("null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
    assert!(fs::symlink_metadata(path("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_link(path("s")).unwrap(), Path::new("nowhere"));
    assert_eq!(fs::symlink_metadata(path("s")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::symlink_metadata(path("d")).unwrap().mtime(), 1_000_000_000);
    assert_eq!((applied.content_bytes, applied.implied), (4, vec![Vec::new()]));
}

#[test]
fn privileged_whiteouts_become_overlayfs_own() {
    let archive = Archive::new()
        .file(".wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .file(".wh..wh.plnk/1.2", b"")
        .file(".wh.back", b"")
        .file("back/x", b"1")
        .dir("late")
        .file(".wh.late", b"")
        .file(".wh.file", b"")
        .file("file", b"2");
    let (dir, applied) = applied(archive);
    let opaque = |name: &str| {
        let mut value = [0; 1];
        rustix::fs::lgetxattr(dir.path().join(name), "trusted.overlay.opaque", &mut value).is_ok() && value == *b"y"
    };
    let gone = fs::symlink_metadata(dir.path().join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(opaque("d") && opaque("back") && opaque("late"));
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"2");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
    // `back` stands where something was deleted: the layers below do not describe it.
    assert_eq!(applied.implied, [b"".to_vec(), b"d".to_vec()]);
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let archive = Archive::new()
        .file("a", b"1")
        .dir("a")
        .file("a/below", b"1")
        .file("a", b"22")
        .symlink("b", "a")
        .dir("b")
        .file("c", b"1")
        .symlink("c", "a");
    let (dir, _) = applied(archive);
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"22");
    assert!(fs::symlink_metadata(dir.path().join("b")).unwrap().is_dir());
    assert!(fs::symlink_metadata(dir.path().join("c")).unwrap().is_symlink());
    let bad = Archive::new().file("a", b"1").entry(tar::EntryType::Link, "a", "a", b"");
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(apply_to(dir.path(), &bad.bytes()), Err(ApplyError::Invalid { .. })));
}

#[test]
fn digests_and_sizes_are_those_of_the_streams() {
    use std::io::Write;
    let tar = Archive::new().file("f", &[7; 300_000]).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    let two_members = [&gzip_of(&tar[..1000])[..], &gzip_of(&tar[1000..])].concat();
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    let sha = |bytes: &[u8]| {
        use sha2::Digest as _;
        Digest::from_sha256(&sha2::Sha256::digest(bytes).into())
    };
    for (bytes, compression) in [
        (&tar, Compression::Plain),
        (&gzip, Compression::Gzip),
        (&two_members, Compression::Gzip),
        (&zstd, Compression::Zstd),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let applied = apply_to(dir.path(), bytes).unwrap();
        assert_eq!((&applied.diff_id, &applied.digest), (&sha(&tar), &sha(bytes)), "{compression:?}");
        assert_eq!(
            (applied.compression, applied.size, applied.tar_bytes),
            (compression, bytes.len() as u64, tar.len() as u64)
        );
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), [7; 300_000]);
    }
}

fn gzip_of(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn a_broken_stream_is_an_error_at_any_length() {
    let tar = Archive::new().file("f", &[7; 3000]).dir("d").bytes();
    for (bytes, name) in
        [(tar.clone(), "tar"), (gzip_of(&tar), "gzip"), (zstd::encode_all(&tar[..], 1).unwrap(), "zstd")]
    {
        // A tar may end after any entry; only cuts within one are errors.
        for cut in [5, bytes.len() / 3, bytes.len() / 2] {
            let dir = tempfile::tempdir().unwrap();
            assert!(matches!(apply_to(dir.path(), &bytes[..cut]), Err(ApplyError::Archive { .. })), "{name} {cut}");
        }
    }
}

#[test]
fn pax_sparse_files_have_their_holes() {
    let data = [[1; 512], [2; 512]].concat();
    let map = b"2\n4096\n512\n1048576\n512\n";
    let mut with_map = map.to_vec();
    with_map.resize(512, 0);
    with_map.extend_from_slice(&data);
    let v1 = Archive::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", b"2000000"),
        ])
        .file("GNUSparseFile.0/real", &with_map);
    let v01 = Archive::new()
        .pax(&[
            ("GNU.sparse.size", b"2000000"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.map", b"4096,512,1048576,512"),
        ])
        .file("x", &data);
    for archive in [v1, v01] {
        let (dir, applied) = applied(archive);
        let bytes = fs::read(dir.path().join("real")).unwrap();
        assert_eq!((bytes.len(), applied.content_bytes), (2_000_000, 2_000_000));
        assert_eq!((bytes[4095], bytes[4096], bytes[1_048_576], bytes[1_048_576 + 512]), (0, 1, 2, 0));
        assert!(fs::metadata(dir.path().join("real")).unwrap().blocks() < 100);
    }
    let lies = Archive::new()
        .pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"4096,512,18446744073709551615,512")])
        .file("x", &data);
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(apply_to(dir.path(), &lies.bytes()), Err(ApplyError::Archive { .. })));
}

#[test]
fn privileged_directories_do_not_nest_without_end() {
    let deep = |levels: usize| Archive::new().pax(&[("path", "d/".repeat(levels).as_bytes())]).dir("x");
    applied(deep(250));
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(apply_to(dir.path(), &deep(300).bytes()), Err(ApplyError::Create { .. })));
    // Each symlink leads as deep as the whole path before it.
    let dir = tempfile::tempdir().unwrap();
    let path = "d/".repeat(200);
    let mut archive = Archive::new().pax(&[("path", path.as_bytes())]).dir("x").symlink("s0", &path[..80]);
    for step in 1..20 {
        let target = format!("s{}/{}", step - 1, &path[..60]);
        archive = archive.dir(&target).symlink(&format!("s{step}"), &target);
    }
    assert!(matches!(apply_to(dir.path(), &archive.bytes()), Err(ApplyError::Create { .. })));
}

#[test]
fn privileged_a_replaced_directory_is_forgotten_with_all_below_it() {
    let archive = Archive::new().dir("a/b/c").dir("a/b-").dir("a/b0").file("a/b", b"1").file("a/b-/x", b"2");
    let (dir, applied) = applied(archive);
    assert_eq!(fs::read(dir.path().join("a/b")).unwrap(), b"1");
    assert!(dir.path().join("a/b0").is_dir() && dir.path().join("a/b-/x").is_file());
    assert_eq!(applied.implied, [b"".to_vec(), b"a".to_vec()]);
}

#[test]
fn privileged_more_directories_than_fit_in_memory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut unpacking =
        Unpacking { tree: Tree::new(root, false), content_bytes: 0, whiteouts: Vec::new(), whiteouts_bytes: 0 };
    let bytes = Archive::new().file(".wh.a", b"").bytes();
    let (chunks, received) = sync_channel(2);
    chunks.send(Ok(std::sync::Arc::new(bytes))).unwrap();
    drop(chunks);
    let mut tar = TarReader::new(ChunkReader::new(received, None));
    let entry = tar.next_entry().unwrap().unwrap();
    unpacking.whiteouts_bytes = PATHS_BYTES_MAX - 200;
    unpacking.entry(&entry, &mut tar).unwrap();
    unpacking.whiteouts_bytes = PATHS_BYTES_MAX;
    assert!(matches!(unpacking.entry(&entry, &mut tar), Err(ApplyError::TooMuch { .. })));
}
