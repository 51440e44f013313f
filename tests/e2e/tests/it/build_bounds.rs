//! `build` of what is made to fill the disk or the memory, or to take for ever.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;
use testkit::Daemon;
use testkit::process::{DEADLINE, until};

use crate::build::{context, path};
use crate::build_ends::await_nothing;
use crate::buildx::plugged;
use crate::support::{At, ours};

/// What is told of a bomb.
const REFUSED: &str = "it inflates to more than any layer of its size";

/// The same byte as often as a block can say it (RFC 8878, 3.1.1.2).
const BLOCK_BYTES: u32 = 128 * 1024;

/// A tar of zstd's that says files of zeros of this length in four bytes a block, behind `first`.
fn bomb(first: &[(&str, &str)], blocks: u32) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in first {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_mode(0o644);
    header.set_size(u64::from(blocks) * u64::from(BLOCK_BYTES));
    header.set_cksum();
    let mut start = tar.into_inner().unwrap();
    // Without the end, which is two blocks of zeros.
    start.truncate(start.len() - 1024);
    start.extend_from_slice(header.as_bytes());
    // No length, no checksum, a window of 128 KiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    let mut block = |kind: u32, length: u32, bytes: &[u8]| {
        frame.extend_from_slice(&(length << 3 | kind << 1).to_le_bytes()[..3]);
        frame.extend_from_slice(bytes);
    };
    block(0, u32::try_from(start.len()).unwrap(), &start);
    (0..=blocks).for_each(|_| block(1, BLOCK_BYTES, b"\0"));
    frame.extend_from_slice(&[1, 0, 0]);
    frame
}

/// How many bytes all files below a directory take.
fn taken(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => taken(&entry.path()),
            Ok(found) => std::os::unix::fs::MetadataExt::blocks(&found) * 512,
            // It has gone meanwhile.
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn privileged_bombs_in_a_build_are_refused_and_nothing_stays() {
    ours(|daemon| {
        let added = context(&[("Dockerfile", "FROM busybox\nADD bomb.tar.zst /\n")]);
        fs::write(added.path().join("bomb.tar.zst"), bomb(&[], 10_000)).unwrap();
        let whole = bomb(&[("Dockerfile", "FROM busybox\n")], 10_000);
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            at.fails(&format!("build {}", path(&added)), 1, REFUSED);
            let mut client = at.spawn("build -");
            client.send(&whole).unwrap();
            client.close_input();
            let output = client.wait().unwrap();
            assert!(output.code != 0 && output.stderr.contains(REFUSED), "{output:?}");
            await_nothing(&at);
        }
        // What is only compressed well is taken.
        let small = context(&[("Dockerfile", "FROM scratch\nADD small.tar.zst /\n")]);
        fs::write(small.path().join("small.tar.zst"), bomb(&[], 100)).unwrap();
        At { daemon, cli: daemon.clis()[0] }.ok(&format!("build {}", path(&small)));
    });
}

/// A file of this name somewhere below a directory.
fn found(directory: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).find_map(|path| match path.is_dir() {
        true => found(&path, name),
        false => path.ends_with(name).then_some(path),
    })
}

/// The first stage waits for the second one, which prints more than anybody keeps while it is not its turn.
#[test]
fn privileged_endless_output_of_a_stage_that_waits_is_bounded() {
    ours(|daemon| {
        let run = |command: &str| format!("RUN --mount=type=cache,id=ends,target=/c {command}\n");
        let text = format!(
            "FROM busybox AS one\n{}FROM busybox\nRUN yes {} | head -n 100000\n{}COPY --from=one /etc/passwd /p\n",
            run("until [ -e /c/go ]; do sleep 0.1; done; rm /c/go"),
            "x".repeat(1000),
            // It begins when all of that has come.
            run("touch /c/printed"),
        );
        let directory = context(&[("Dockerfile", &text)]);
        let root = daemon.scratch().data_root();
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let client = at.spawn(&format!("build --no-cache --force-rm {}", path(&directory)));
            let printed = || found(&root.join("build-cache-mounts"), "printed");
            let printed = until("all is printed", DEADLINE, printed).unwrap();
            let held = taken(&root.join("builds"));
            assert!(held < 80 << 20, "{held} bytes");
            fs::write(printed.with_file_name("go"), "").unwrap();
            fs::remove_file(printed).unwrap();
            let output = client.wait().unwrap();
            assert_eq!(output.code, 0, "{}", output.stderr);
            let (_, behind) = output.stdout.split_once("[output left out: ").expect("it is told what was left out");
            assert!(behind.contains("Successfully built"), "the end is not told");
        }
    });
}

/// Whether a thread of the daemon's waits for somebody, or reads for nobody.
fn has_waiting_threads(daemon: &Daemon) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid().unwrap())).unwrap().flatten();
    tasks.into_iter().any(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "waiting\n"))
}

/// A file of holes costs nothing to make, and days to read.
#[test]
fn privileged_hashing_an_output_ends_with_its_client() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("dockerd does not hash what it sends");
        }
        let daemon = plugged.at.daemon;
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN truncate -s 8000G /long\n")]);
        let to = tempfile::tempdir().unwrap();
        let line = format!(
            "buildx build --progress plain --provenance=mode=min -o type=local,dest={} {}",
            to.path().display(),
            path(&directory)
        );
        let mut client = plugged.spawn(&line);
        client.read_until("exporting to client").unwrap();
        until("the file is hashed", DEADLINE, || has_waiting_threads(daemon).then_some(())).unwrap();
        client.signal(Signal::KILL).unwrap();
        client.wait().unwrap();
        until("nobody hashes it", DEADLINE, || (!has_waiting_threads(daemon)).then_some(())).unwrap();
    });
}

/// An image whose command is a script.
fn scanner(script: &str) -> TempDir {
    context(&[("Dockerfile", "FROM busybox\nCOPY scan /scan\nENTRYPOINT [\"sh\",\"/scan\"]\n"), ("scan", script)])
}

#[test]
fn privileged_what_a_generator_writes_is_bounded() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("buildx asks dockerd for no attestations without containerd's store");
        }
        let generator = plugged.at.image("generator");
        // Each alone is no more than all may be.
        let script = "for n in $(seq 60); do truncate -s 60M $BUILDKIT_SCAN_DESTINATION/$n.json; done\n";
        plugged.build(&generator, &scanner(script), "");
        let directory = context(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
        let printed = plugged.fails(&directory, &format!("--sbom=generator={generator} -o type=cacheonly"));
        assert!(printed.contains("file too large"), "{printed}");
        plugged.at.ok(&format!("rmi {generator}"));
    });
}
