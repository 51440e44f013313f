//! Layers that nobody planned, for a bounded time (`testkit::mutate`): above all whiteouts, where they do not belong.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use layer::{apply_recorded, recreate};
use testkit::mutate::{Mutator, rounds};

/// Where entries may be, for good and for bad.
const NAMES: [&str; 26] = [
    "a",
    "d",
    "d/",
    "d/b",
    "d/e/f",
    "l",
    "l/x",
    "l/.wh.canary",
    ".wh.a",
    ".wh.d",
    ".wh.l",
    "d/.wh.b",
    "d/.wh.e",
    ".wh..wh..opq",
    "d/.wh..wh..opq",
    "l/.wh..wh..opq",
    ".wh.",
    ".wh..",
    ".wh...",
    "d/.wh.e/f",
    ".wh..wh.plnk/1",
    ".wh..wh.aufs",
    "../.wh.canary",
    "../canary",
    "/a",
    "./d/../.wh.a",
];

/// Where links may lead.
const TARGETS: [&str; 9] = ["a", "d", "d/b", "..", "../canary", "/", "l", ".wh.a", "d/e/../../.."];

/// A layer of a few entries, each of any kind at any place.
fn layer(mutator: &mut Mutator) -> Vec<u8> {
    let mut tar = Vec::new();
    for _ in 0..1 + mutator.below(8) {
        let kind = *mutator.pick(b"00005555512346x");
        let data: &[u8] = if matches!(kind, b'0' | b'x') { b"20 path=d/.wh.e/f/g\n" } else { b"" };
        let mut block = [0; 512];
        let (name, target) = (mutator.pick(&NAMES).as_bytes(), mutator.pick(&TARGETS).as_bytes());
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(*mutator.pick(&[b"0000644", b"0000755", b"0004755", b"0000000"]));
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        block[136..147].copy_from_slice(b"07346545000");
        block[156] = kind;
        block[157..157 + target.len()].copy_from_slice(target);
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[329..336].copy_from_slice(*mutator.pick(&[b"0000000", b"0000001"]));
        block[337..344].copy_from_slice(*mutator.pick(&[b"0000000", b"0000003"]));
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&block);
        if !data.is_empty() {
            tar.extend_from_slice(data);
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
    }
    tar.resize(tar.len() + 1024, 0);
    if mutator.once_in(5) { mutator.bytes(&tar) } else { tar }
}

/// What must stay as it is: a file beside the layer, and that nothing else is there.
fn beside(outer: &Path) -> (Vec<std::ffi::OsString>, String, u32) {
    let mut names: Vec<_> = fs::read_dir(outer).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let canary = outer.join("canary");
    (names, fs::read_to_string(&canary).unwrap(), fs::metadata(&canary).unwrap().mode())
}

#[test]
fn privileged_slow_whiteouts_of_any_shape_stay_in_their_layer_and_come_back_to_the_byte() {
    if testkit::skip::without_root() {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("canary"), "alive").unwrap();
    fs::create_dir(outer.path().join("layer")).unwrap();
    symlink("..", outer.path().join("up")).unwrap();
    let before = beside(outer.path());
    let (mut taken, mut refused) = (0, 0);
    rounds(|mutator| {
        let tar = layer(mutator);
        let directory = outer.path().join("layer");
        let mut recipe = Vec::new();
        match apply_recorded(&tar[..], &directory, 1 << 30, &mut recipe) {
            Ok(applied) => {
                taken += 1;
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&recipe).unwrap();
                let mut again = Vec::new();
                recreate(&file, &directory, &applied.diff_id, &mut again).unwrap();
                assert!(again == tar, "{} bytes came back of {}", again.len(), tar.len());
            }
            Err(err) => {
                refused += 1;
                assert!(!err.to_string().is_empty());
            }
        }
        fs::remove_dir_all(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        assert_eq!(beside(outer.path()), before);
    });
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
}
