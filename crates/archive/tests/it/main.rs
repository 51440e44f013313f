//! Archives that nobody planned, for a bounded time (`testkit::mutate`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod order;

use archive::{TarError, TarReader, clean_path, looks_like_tar};
use testkit::images::plan::{Entry, Kind as Planned};
use testkit::images::write;
use testkit::mutate::{Mutator, rounds};

const BLOCK: usize = 512;

/// Every kind of entry, with names that need extended headers.
fn good() -> Vec<u8> {
    let long = format!("d/{}", "n".repeat(180));
    let mut noted = Entry::file("noted", "1");
    noted.xattrs.push(("user.note".into(), b"why".to_vec()));
    let entries = [
        Entry::dir("d", 0o755),
        Entry::file("d/file", &"0123456789abcdef".repeat(100)),
        Entry::file(&long, "long"),
        Entry::new("d/link", 0o777, Planned::Symlink("../../d".into())),
        Entry::new("hard", 0o644, Planned::Hardlink("d/file".into())),
        Entry::new("pipe", 0o600, Planned::Fifo),
        noted,
    ];
    write::layer_tar(&entries).unwrap()
}

/// The field of a header, from where to where (POSIX ustar, and GNU's for sparse files).
const FIELDS: [(usize, usize); 12] = [
    (0, 100),
    (100, 108),
    (108, 116),
    (116, 124),
    (124, 136),
    (136, 148),
    (156, 157),
    (157, 257),
    (257, 265),
    (329, 345),
    (345, 500),
    (386, 512),
];

/// The archive with a field of a block changed, whose sum fits then; or with any bytes changed.
fn changed(mutator: &mut Mutator, bytes: &[u8]) -> Vec<u8> {
    if mutator.once_in(4) {
        return mutator.bytes(bytes);
    }
    let mut bytes = bytes.to_vec();
    for _ in 0..=mutator.below(3) {
        let at = mutator.below(bytes.len() / BLOCK) * BLOCK;
        let block = &mut bytes[at..at + BLOCK];
        let (begin, end) = *mutator.pick(&FIELDS);
        match mutator.below(5) {
            0 => block[156] = *mutator.pick(b"01234567SxgLKDVMN\0 \xff"),
            1 => block[124..136].copy_from_slice(*mutator.pick(&[
                b"77777777777\0",
                b"\x80\0\0\0\0\0\0\0\0\0\0\x01",
                b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                b"00000000777 ",
            ])),
            2 => block[begin..end].fill(*mutator.pick(&[0, b' ', b'7', b'/', b'.', 0x80, 0xff])),
            _ => {
                let field = mutator.bytes(&block[begin..end]);
                let length = field.len().min(end - begin);
                block[begin..begin + length].copy_from_slice(&field[..length]);
            }
        }
        sum(block);
    }
    bytes
}

fn sum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Reads it to its end, in pieces of `piece` bytes; what came, or why it did not.
fn read(bytes: &[u8], piece: usize) -> Result<Vec<(archive::Entry, u64)>, TarError> {
    let mut reader = TarReader::new(std::io::BufReader::with_capacity(piece, bytes));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut sum = 0;
        loop {
            let chunk = reader.chunk()?;
            if chunk.is_empty() {
                break;
            }
            sum += chunk.iter().map(|byte| u64::from(*byte)).sum::<u64>() + chunk.len() as u64;
            let length = chunk.len();
            reader.consume(length);
        }
        entries.push((entry, sum));
    }
    reader.drain()?;
    Ok(entries)
}

#[test]
fn slow_tar_headers_of_any_shape_are_read_the_same_whatever_the_pieces() {
    let good = good();
    assert!(read(&good, 4096).unwrap().len() == 7 && looks_like_tar(&good));
    rounds(|mutator| {
        let bytes = changed(mutator, &good);
        let (whole, pieces) = (read(&bytes, 1 << 16), read(&bytes, 1 + mutator.below(600)));
        match (&whole, &pieces) {
            (Ok(whole), Ok(pieces)) => assert_eq!(format!("{whole:?}"), format!("{pieces:?}")),
            (Err(whole), Err(pieces)) => assert_eq!(whole.to_string(), pieces.to_string()),
            _ => panic!("{whole:?} and {pieces:?}"),
        }
        for (entry, data) in whole.unwrap_or_default() {
            check(&entry, data, bytes.len());
        }
    });
}

/// What everybody who reads archives relies on.
fn check(entry: &archive::Entry, data: u64, length: usize) {
    assert!(data <= 256 * length as u64, "{entry:?} has more data than there are bytes");
    assert!(entry.path.len() <= length && entry.link.len() <= length, "{entry:?}");
    if let Some(clean) = clean_path(&entry.path) {
        let parts: Vec<&[u8]> = clean.split(|byte| *byte == b'/').collect();
        assert!(clean.is_empty() || parts.iter().all(|part| !matches!(*part, b"" | b"." | b"..")), "{entry:?}");
        assert_eq!(clean_path(&clean).as_ref(), Some(&clean));
    }
}
