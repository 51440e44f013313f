use super::*;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn store() -> (tempfile::TempDir, Content) {
    let dir = tempfile::tempdir().unwrap();
    let content = Content::open(dir.path()).unwrap();
    (dir, content)
}

fn unfinished(dir: &tempfile::TempDir) -> usize {
    fs::read_dir(dir.path().join("ingest")).unwrap().count()
}

#[test]
fn what_goes_in_comes_out_under_its_digest() {
    let (dir, content) = store();
    for (bytes, digest) in [(&b""[..], EMPTY), (b"abc", ABC)] {
        let blob = content.ingest(bytes, &Expected::default(), Sync::Now).unwrap();
        assert_eq!((blob.digest.as_str(), blob.size), (digest, bytes.len() as u64));
        assert_eq!(content.read(&blob.digest, 3).unwrap(), bytes);
        assert_eq!(content.size(&blob.digest).unwrap(), Some(bytes.len() as u64));
    }
    let mut all: Vec<String> = content.list().unwrap().iter().map(ToString::to_string).collect();
    all.sort();
    assert_eq!(all, [ABC, EMPTY]);
    assert_eq!(unfinished(&dir), 0);
    let abc: Digest = ABC.parse().unwrap();
    assert!(matches!(content.read(&abc, 2), Err(ReadError::TooLarge { .. })));
    content.remove(&abc).unwrap();
    assert_eq!(content.size(&abc).unwrap(), None);
    content.remove(&abc).unwrap();
    assert!(matches!(content.reader(&abc), Err(ReadError::NotFound { .. })));
}

#[test]
fn what_is_not_what_was_promised_leaves_nothing() {
    let (dir, content) = store();
    let digest = Some(ABC.parse().unwrap());
    let wrong = content.ingest(&b"abd"[..], &Expected { digest, size: None }, Sync::Later);
    assert!(matches!(wrong, Err(IngestError::WrongDigest { .. })));
    for size in [2, 4] {
        let wrong = content.ingest(&b"abc"[..], &Expected { digest: None, size: Some(size) }, Sync::Later);
        assert!(matches!(wrong, Err(IngestError::WrongSize { .. })), "{size}");
    }
    assert!(content.list().unwrap().is_empty());
    assert_eq!(unfinished(&dir), 0);
}

#[test]
fn an_endless_source_is_cut_off_at_the_promised_size() {
    let (dir, content) = store();
    let endless = content.ingest(io::repeat(7), &Expected { digest: None, size: Some(10) }, Sync::Later);
    assert!(matches!(endless, Err(IngestError::WrongSize { expected: 10, .. })));
    assert_eq!(unfinished(&dir), 0);
}

#[test]
fn what_a_dead_process_left_is_swept_at_open() {
    let (dir, content) = store();
    let mut ingest = content.begin().unwrap();
    ingest.write(b"half").unwrap();
    std::mem::forget(ingest);
    assert_eq!(unfinished(&dir), 1);
    Content::open(dir.path()).unwrap();
    assert_eq!(unfinished(&dir), 0);
}

#[test]
fn a_blob_may_rest_while_it_is_made() {
    let (dir, content) = store();
    let mut ingest = content.begin().unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let is_open = || open().any(|path| path.starts_with(dir.path()));
    for part in ["a", "b", "c"] {
        ingest.write(part.as_bytes()).unwrap();
        assert!(is_open());
        ingest.rest();
        assert!(!is_open());
    }
    let blob = ingest.commit(&Expected::default(), Sync::Now).unwrap();
    assert_eq!(content.read(&blob.digest, 3).unwrap(), b"abc");
    assert_eq!(blob.digest.as_str(), ABC);
}

#[test]
fn a_partial_blob_goes_on_in_the_next_process_and_becomes_a_blob_once_verified() {
    let (dir, content) = store();
    let abc: Digest = ABC.parse().unwrap();
    let mut partial = content.partial(&abc).unwrap();
    partial.write(b"ab").unwrap();
    drop((partial, content));
    let content = Content::open(dir.path()).unwrap();
    let mut partial = content.partial(&abc).unwrap();
    assert_eq!(partial.size(), 2);
    partial.write(b"c").unwrap();
    assert_eq!(partial.digest(), abc);
    let mut reader = partial.reader().unwrap();
    assert!(content.list().unwrap().is_empty() && !content.contains(&abc));
    // Two pulls that shared the transfer both make a blob of it.
    let expected = Expected { digest: Some(abc.clone()), size: Some(3) };
    let (one, two) = (content.verified(&abc, 3).unwrap(), content.verified(&abc, 3).unwrap());
    assert_eq!(one.commit(&expected, Sync::Now).unwrap().size, 3);
    two.commit(&expected, Sync::Later).unwrap();
    assert_eq!(content.read(&abc, 3).unwrap(), b"abc");
    assert!(content.verified(&abc, 3).is_none());
    // What a transfer that was cut has left beside the blob is not the blob.
    content.partial(&abc).unwrap().write(b"a").unwrap();
    assert!(content.verified(&abc, 3).is_none() && content.verified(&abc, 1).is_none());
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"abc");
}

#[test]
fn partial_blobs_that_nobody_took_up_for_a_day_are_removed() {
    let (dir, content) = store();
    for digest in [ABC, EMPTY] {
        content.partial(&digest.parse().unwrap()).unwrap().write(b"x").unwrap();
    }
    let grow_old = |content: &Content| {
        let file = File::options().write(true).open(content.partials.join(&ABC[7..])).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60)).unwrap();
    };
    grow_old(&content);
    let content = Content::open(dir.path()).unwrap();
    assert_eq!(content.partial(&EMPTY.parse().unwrap()).unwrap().size(), 1);
    assert_eq!(content.partial(&ABC.parse().unwrap()).unwrap().size(), 0);
    // A process that lives for long does the same.
    content.partial(&ABC.parse().unwrap()).unwrap().write(b"x").unwrap();
    grow_old(&content);
    let stale = content.stale_partials().unwrap();
    assert_eq!(stale, [ABC.parse().unwrap()]);
    content.discard(&stale[0]).unwrap();
    assert!(content.verified(&ABC.parse().unwrap(), 1).is_none());
    content.partial(&ABC.parse().unwrap()).unwrap().write(b"x").unwrap();
    let mut partials = content.partials().unwrap();
    partials.sort();
    assert_eq!(partials, [ABC, EMPTY].map(|digest| digest.parse().unwrap()));
    content.discard(&ABC.parse().unwrap()).unwrap();
    content.discard(&ABC.parse().unwrap()).unwrap();
    assert!(content.verified(&ABC.parse().unwrap(), 1).is_none());
    let mut partial = content.partial(&EMPTY.parse().unwrap()).unwrap();
    partial.restart().unwrap();
    assert_eq!((partial.size(), partial.digest().as_str()), (0, EMPTY));
    partial.discard().unwrap();
    assert!(content.verified(&EMPTY.parse().unwrap(), 0).is_none());
}
