use std::fs;
use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::{Applied, ApplyError, apply_recorded};

/// A header block with a checksum, and nothing that anybody else put in it.
fn header(name: &[u8], kind: u8, size: u64, link: &[u8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"07346545000");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar  \0");
    checked(block)
}

fn checked(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// Data and what fills its last block, which need not be zeros.
fn padded(data: &[u8], filler: u8) -> Vec<u8> {
    let mut padded = data.to_vec();
    padded.resize(data.len().next_multiple_of(512), filler);
    padded
}

fn entry(name: &str, kind: u8, data: &[u8], filler: u8) -> Vec<u8> {
    [&header(name.as_bytes(), kind, data.len() as u64, b"")[..], &padded(data, filler)].concat()
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    entry(name, b'0', data, 0)
}

fn link(name: &str, kind: u8, target: &str) -> Vec<u8> {
    header(name.as_bytes(), kind, 0, target.as_bytes()).to_vec()
}

/// A name as GNU tar says one that does not fit.
fn long_name(name: &str) -> Vec<u8> {
    entry("././@LongLink", b'L', &[name.as_bytes(), b"\0"].concat(), 0)
}

fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
    let record = [length.unwrap().to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    entry("pax", b'x', &record, 0)
}

/// GNU's old form: `holes` bytes of nothing, then the data.
fn sparse(name: &str, hole: u64, data: &[u8]) -> Vec<u8> {
    let mut block = header(name.as_bytes(), b'S', data.len() as u64, b"");
    block[386..397].copy_from_slice(format!("{hole:011o}").as_bytes());
    block[398..409].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[483..494].copy_from_slice(format!("{:011o}", hole + data.len() as u64).as_bytes());
    [&checked(block)[..], &padded(data, 0)].concat()
}

struct Made {
    applied: Applied,
    directory: tempfile::TempDir,
    recipe: Vec<u8>,
}

fn make(tar: &[u8]) -> Result<Made, ApplyError> {
    let (directory, mut recipe) = (tempfile::tempdir().unwrap(), Vec::new());
    let applied = apply_recorded(tar, directory.path(), u64::MAX, &mut recipe)?;
    Ok(Made { applied, directory, recipe })
}

impl Made {
    fn again(&self) -> Result<Vec<u8>, RecreateError> {
        let mut recipe = tempfile::tempfile().unwrap();
        recipe.write_all(&self.recipe).unwrap();
        let mut tar = Vec::new();
        recreate(&recipe, self.directory.path(), &self.applied.diff_id, &mut tar).map(|()| tar)
    }
}

fn comes_back(what: &str, tar: &[u8]) -> usize {
    let made = make(tar).unwrap_or_else(|err| panic!("{what}: {}", errdefs::chain(&err)));
    let again = made.again().unwrap_or_else(|err| panic!("{what}: {}", errdefs::chain(&err)));
    assert!(again == tar, "{what}: {} bytes came back of {}", again.len(), tar.len());
    made.recipe.len()
}

/// Bytes that do not shrink.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

#[test]
fn privileged_every_kind_of_tar_comes_back_to_the_byte() {
    let end = vec![0; 1024];
    let big = noise(700_000);
    let long = format!("d/{}", "n".repeat(180));
    let table: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("nothing at all", vec![]),
        ("an end and nothing else", vec![end.clone()]),
        ("no end", vec![file("a", b"1")]),
        ("twenty blocks of end", vec![file("a", b"1"), vec![0; 10_240]]),
        ("garbage behind the end", vec![file("a", b"1"), end.clone(), noise(3_333)]),
        ("another archive behind the end", vec![file("a", b"1"), end.clone(), file("a", b"2"), end.clone()]),
        ("padding that is not zero", vec![entry("a", b'0', b"12345", b'#'), end.clone()]),
        ("empty and full files", vec![file("a", b""), file("b", &[7; 512]), file("c", &big), end.clone()]),
        ("a long name", vec![long_name(&long), file("cut", &big), end.clone()]),
        ("a name in PAX", vec![pax("path", long.as_bytes()), file("cut", &big), end.clone()]),
        ("records for all", vec![entry("g", b'g', b"11 a=bcdef\n", 0), file("a", b"1"), end.clone()]),
        ("xattrs", vec![pax("SCHILY.xattr.user.a", &[1, 0, 2]), file("a", &big), end.clone()]),
        ("holes", vec![sparse("a", 1 << 30, b"data"), file("b", &big), end.clone()]),
        ("a file with holes replaced", vec![sparse("a", 1 << 30, b"data"), file("a", b"x"), end.clone()]),
        ("hard links", vec![file("a", &big), link("b", b'1', "a"), link("c", b'1', "b"), end.clone()]),
        ("links to directories", vec![link("l", b'2', "d"), entry("d", b'5', b"", 0), file("l/x", &big), end.clone()]),
        ("dots and slashes", vec![file("./a//b/../c", &big), file("/a/d", b"1"), end.clone()]),
        ("whiteouts", vec![entry("d/.wh.x", b'0', b"why", 0), file("d/.wh..wh..opq", b""), end.clone()]),
        ("AUFS' own", vec![file(".wh..wh.plnk/1", &big), file("a", b"1"), end.clone()]),
        ("a file twice", vec![file("a", &big), file("a", b"2"), end.clone()]),
        ("a file thrice", vec![file("a", b"1"), file("a", &big), file("b", b"b"), file("a", b"3"), end.clone()]),
        ("a file replaced by a link", vec![file("a", &big), file("b", b"2"), link("a", b'2', "b"), end.clone()]),
        ("a file replaced by its link", vec![file("a", &big), link("b", b'1', "a"), link("a", b'1', "b"), end.clone()]),
        (
            "a name of a file that has another",
            vec![file("a", &big), link("b", b'1', "a"), file("b", b"2"), file("a", b"3"), end.clone()],
        ),
        ("a file replaced by a directory", vec![file("a", &big), entry("a/", b'5', b"", 0), end.clone()]),
        (
            "a tree replaced by a file",
            vec![file("d/e/a", &big), file("d/b", b"1"), link("d/c", b'1', "d/b"), file("d", b"2"), end.clone()],
        ),
        (
            "replaced in another order than made",
            vec![file("a", b"1"), file("b", b"2"), file("c", &big), file("c", b""), file("a", b""), file("b", b"")],
        ),
    ];
    for (what, parts) in table {
        comes_back(what, &parts.concat());
    }
}

#[test]
fn privileged_a_recipe_keeps_no_contents_that_the_directory_has() {
    let tar: Vec<u8> = (0..200).flat_map(|n| file(&format!("d/{n}"), &noise(10_000))).collect();
    let recipe = comes_back("200 files", &tar);
    assert!(recipe < 8_000, "{recipe} bytes for 200 headers");
    let twice = [tar.clone(), file("d/7", b"new")].concat();
    let recipe = comes_back("one of 200 replaced", &twice);
    assert!((10_000..20_000).contains(&recipe), "{recipe} bytes for 200 headers and one file");
}

#[test]
fn privileged_a_layer_that_changed_is_told() {
    let tar = [file("a", b"12345"), file("b", b"1")].concat();
    let changed = |change: &dyn Fn(&Path)| {
        let made = make(&tar).unwrap();
        change(made.directory.path());
        errdefs::chain(&made.again().unwrap_err())
    };
    let other = changed(&|dir| fs::write(dir.join("a"), "54321").unwrap());
    assert!(other.contains("is not what it was: it gives a tar of sha256:"), "{other}");
    let short = changed(&|dir| fs::write(dir.join("a"), "1").unwrap());
    assert!(short.starts_with("read \"a\" of layer sha256:"), "{short}");
    let gone = changed(&|dir| fs::remove_file(dir.join("a")).unwrap());
    assert!(gone.ends_with("no such file or directory"), "{gone}");
    let link = changed(&|dir| {
        fs::remove_file(dir.join("a")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("a")).unwrap();
    });
    assert!(link.contains("read \"a\" of layer"), "{link}");
}

#[test]
fn privileged_a_torn_recipe_is_told() {
    let mut made = make(&[file("a", &noise(5_000)), file("a", b"1"), vec![0; 1024]].concat()).unwrap();
    let whole = made.recipe.clone();
    for length in (0..whole.len()).step_by(7) {
        made.recipe.truncate(length);
        made.again().unwrap_err();
        made.recipe.clone_from(&whole);
    }
    for at in 0..whole.len() {
        made.recipe[at] ^= 0x55;
        // A bit of a compressed stream may mean nothing; then the tar is the same, which its digest says.
        let _ = made.again();
        made.recipe[at] ^= 0x55;
    }
}

#[test]
fn privileged_a_recipe_that_cannot_be_written_fails_the_layer() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let tar: Vec<u8> = (0..100).flat_map(|n| entry(&format!("d/{n}"), b'5', b"", 0)).chain(noise(300_000)).collect();
    let tar = [file("a", b"1"), vec![0; 1024], tar].concat();
    for room in [0, 8, 1_000, 200_000] {
        let directory = tempfile::tempdir().unwrap();
        let err = apply_recorded(&tar[..], directory.path(), u64::MAX, &mut Full(room)).unwrap_err();
        assert!(matches!(err, ApplyError::Record { .. }), "{room}: {err}");
    }
}

/// One entry of an archive of few names, so that they meet.
fn any_entry() -> impl Strategy<Value = Vec<u8>> {
    let name = || prop::sample::select(vec!["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "l/a", "./a", "d/../b"]);
    let data = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 1..40),
        (0..3_000usize).prop_map(noise),
        Just(noise(300_000)),
    ];
    prop_oneof![
        6 => (name(), data.clone(), any::<u8>()).prop_map(|(name, data, filler)| entry(name, b'0', &data, filler)),
        1 => (name(), data.clone()).prop_map(|(name, data)| sparse(name, 5_000, &data)),
        2 => name().prop_map(|name| entry(name, b'5', b"", 0)),
        2 => (name(), name()).prop_map(|(name, target)| link(name, b'1', target)),
        1 => (name(), name()).prop_map(|(name, target)| link(name, b'2', target)),
        1 => Just(link("l", b'2', "d")),
        1 => name().prop_map(|name| entry(name, b'6', b"", 0)),
        1 => Just(file("d/.wh.a", b"")),
        1 => Just(file("d/.wh..wh..opq", b"")),
        1 => (name(), data.clone()).prop_map(|(name, data)| [pax("path", name.as_bytes()), file("x", &data)].concat()),
        1 => (name(), data).prop_map(|(name, data)| [long_name(name), file("x", &data)].concat()),
        1 => Just([pax("SCHILY.xattr.user.k", b"v"), file("a", b"x")].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn privileged_any_tar_that_is_applied_comes_back(
        entries in prop::collection::vec(any_entry(), 0..14),
        end in prop_oneof![Just(0), Just(512), Just(1024), Just(10_240)],
        behind in 0..2_000usize,
    ) {
        // Entries that cannot stand where others are left out, until the rest is one layer.
        let mut taken: Vec<u8> = Vec::new();
        for entry in entries {
            let more = [&taken[..], &entry].concat();
            if make(&more).is_ok() {
                taken = more;
            }
        }
        let tar = [&taken[..], &vec![0; end], &noise(if end < 512 { 0 } else { behind })].concat();
        prop_assert!(make(&tar).unwrap().again().unwrap() == tar);
    }
}
