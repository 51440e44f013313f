use super::*;

#[test]
fn clean_paths_stay_below_the_root() {
    for (path, clean) in [
        ("a", Some("a")),
        ("./a//b/", Some("a/b")),
        ("/a/./b", Some("a/b")),
        ("a/../b", Some("b")),
        (".", Some("")),
        ("", Some("")),
        ("..", None),
        ("a/../../b", None),
        ("/..", None),
    ] {
        assert_eq!(clean_path(path.as_bytes()).as_deref(), clean.map(str::as_bytes), "{path}");
    }
}

#[test]
fn numbers_are_octal_or_big_endian() {
    for (field, value) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"\x80\0\0\0\0\0\x01\0", Some(256)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
        (b"0000648\0", None),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
    ] {
        assert_eq!(number(field).ok(), value, "{field:?}");
    }
}

#[test]
fn times_have_any_precision_and_sign() {
    for (text, expected) in [
        ("12", Some((12, 0))),
        ("12.5", Some((12, 500_000_000))),
        ("12.1234567899", Some((12, 123_456_789))),
        ("-1.25", Some((-2, 750_000_000))),
        ("-3", Some((-3, 0))),
        ("1.x", None),
        ("", None),
        ("+1", None),
    ] {
        assert_eq!(time(text.as_bytes()).ok().map(|time| (time.secs, time.nanos)), expected, "{text}");
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, TarError> {
    let mut tar = TarReader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = tar.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

/// A header with a right checksum.
fn header(name: &str, flag: u8, size: &str) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    block[156] = flag;
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[test]
fn an_archive_ends_at_zeros_or_at_the_end() {
    let file = header("f", b'0', "0");
    assert_eq!(read(b"").unwrap().len(), 0);
    assert_eq!(read(&[0; 1024]).unwrap().len(), 0);
    assert_eq!(read(&file).unwrap().len(), 1);
    assert_eq!(read(&[&file[..], &[0; 512], &file[..]].concat()).unwrap().len(), 1);
    assert!(matches!(read(&file[..511]), Err(TarError::Truncated)));
    // What fills the last block may be missing, the data may not.
    let whole = [&header("f", b'0', "3")[..], b"abc"].concat();
    assert_eq!(read(&whole).unwrap().len(), 1);
    assert_eq!(read(&[&whole[..], &[0; 100]].concat()).unwrap().len(), 1);
    assert!(matches!(read(&whole[..whole.len() - 1]), Err(TarError::Truncated)));
}

#[test]
fn hostile_headers_are_refused_before_they_cost_memory() {
    // An extended header of 8 GiB minus one: refused by its size alone.
    assert!(matches!(read(&header("x", b'x', "77777777777")), Err(TarError::Header { .. })));
    assert!(matches!(read(&header("x", b'L', "77777777777")), Err(TarError::Header { .. })));
    assert!(matches!(read(&header("x", b'Z', "0")), Err(TarError::UnknownKind(b'Z'))));
    let mut wrong = header("f", b'0', "0");
    wrong[0] = b'g';
    assert!(matches!(read(&wrong), Err(TarError::Header { .. })));
    let pax = |record: &str| {
        let mut bytes = header("p", b'x', &format!("{:o}", record.len())).to_vec();
        bytes.extend_from_slice(record.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes.extend_from_slice(&header("f", b'0', "0"));
        read(&bytes).map(|entries| entries[0].path.clone())
    };
    assert_eq!(pax("11 path=ab\n").unwrap(), b"ab");
    for bad in ["10 path=ab\n", "99 path=ab\n", "path=ab\n", "3 a", "0 path=ab\n", "11 path=a\0\n", "8 uid=x\n", "x"] {
        assert!(pax(bad).is_err(), "{bad:?}");
    }
    let long = "a/".repeat(3000);
    assert!(pax(&format!("{} path={long}\n", long.len() + 11)).is_err());
}

#[test]
fn layers_are_told_from_documents() {
    assert!(looks_like_tar(&header("f", b'0', "0")));
    assert!(looks_like_tar(&[0; 512]));
    assert!(!looks_like_tar(&[0x1f, 0x8b, 8, 0]));
    assert!(!looks_like_tar(b"{\"schemaVersion\":2}"));
    assert!(!looks_like_tar(&[b' '; 600]));
}

#[test]
fn extended_headers_without_end_cost_no_memory() {
    let record = format!("100000 SCHILY.xattr.user.a={}\n", "x".repeat(100_000 - 28));
    let mut one = header("p", b'x', &format!("{:o}", record.len())).to_vec();
    one.extend_from_slice(record.as_bytes());
    one.resize(one.len().next_multiple_of(BLOCK), 0);
    let few = [one.repeat(3), header("f", b'0', "0").to_vec()].concat();
    assert_eq!(read(&few).unwrap()[0].xattrs.len(), 3);
    assert!(matches!(read(&one.repeat(20)), Err(TarError::Header { .. })));
    let nothing = header("p", b'x', "0").repeat(5000);
    assert!(matches!(read(&nothing), Err(TarError::Header { .. })));
}
