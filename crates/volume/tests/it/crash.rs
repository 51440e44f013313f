//! kill -9 in the middle of everything.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use volume::{Filled, Volumes, Wanted};

use crate::wanted;

/// Tells the child where to work.
const PLACE: &str = "VOLUME_CRASH_PLACE";

/// How often it is killed.
const KILLS: u64 = 40;

/// What the child said of one volume last.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Making,
    Made,
    Filled,
    Removing,
    Removed,
}

/// Makes, fills and removes volumes until somebody kills it.
fn work(place: &Path) {
    let mut out = std::io::stdout();
    let volumes = Volumes::open(&place.join("volumes")).unwrap();
    let image = File::open(place.join("image")).unwrap();
    let run = volume::VolumeName::random();
    for index in 0.. {
        let name = format!("{}-{index}", &run.as_str()[..8]);
        let mut say = |what: &str| writeln!(out, "@{what} {name}").unwrap();
        say("making");
        let labels = BTreeMap::from([("of".to_owned(), name.clone())]);
        volumes.create(&Wanted { labels: Some(labels), ..wanted(&name) }, None).unwrap();
        say("made");
        assert_eq!(volumes.fill(&name, image.as_fd(), Path::new("/")).unwrap(), Filled::Copied);
        say("filled");
        if index % 2 == 0 {
            say("removing");
            volumes.remove(&name).unwrap();
            say("removed");
            volumes.sweep().unwrap();
        }
    }
}

#[test]
fn a_kill_at_any_point_leaves_whole_volumes() {
    // The process to be killed is this test once more.
    if let Some(place) = std::env::var_os(PLACE) {
        return work(Path::new(&place));
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::create_dir_all(image.join("d/e")).unwrap();
    for index in 0..20 {
        fs::write(image.join(format!("file-{index}")), "x".repeat(100)).unwrap();
        fs::write(image.join(format!("d/e/file-{index}")), "y").unwrap();
    }
    fs::set_permissions(&image, fs::Permissions::from_mode(0o751)).unwrap();
    let mut seen = Vec::new();
    for round in 0..KILLS {
        // After so many lines; where it is by then is up to the scheduler.
        let said = killed_after(dir.path(), 1 + round % 13);
        check(dir.path(), &said);
        seen.extend(said.into_values());
    }
    // Else the test has shown nothing.
    for what in [Said::Filled, Said::Removed] {
        assert!(seen.contains(&what), "{what:?} was never said");
    }
}

fn killed_after(place: &Path, lines: u64) -> BTreeMap<String, Said> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::a_kill_at_any_point_leaves_whole_volumes", "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (mut said, mut count) = (BTreeMap::new(), 0);
    // After the kill, what it had written before is still there to be read.
    for line in output.lines().map_while(Result::ok) {
        let Some((what, name)) = line.split_once('@').and_then(|(_, line)| line.split_once(' ')) else { continue };
        let what = match what {
            "making" => Said::Making,
            "made" => Said::Made,
            "filled" => Said::Filled,
            "removing" => Said::Removing,
            "removed" => Said::Removed,
            _ => continue,
        };
        said.insert(name.to_owned(), what);
        count += 1;
        if count == lines {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(count >= lines, "the child ended by itself: {status}");
    said
}

fn check(place: &Path, said: &BTreeMap<String, Said>) {
    let root = place.join("volumes");
    let volumes = Volumes::open(&root).unwrap();
    assert!(volumes.faults().is_empty(), "{:?}", volumes.faults());
    volumes.sweep().unwrap();
    let listed: BTreeMap<String, _> =
        volumes.list().into_iter().map(|listed| (listed.volume.name.to_string(), listed.volume)).collect();
    assert_eq!(fs::read_dir(&root).unwrap().count(), listed.len(), "something is left beside the volumes");
    for (name, volume) in &listed {
        assert_eq!(volume.labels.as_ref().and_then(|labels| labels.get("of")), Some(name));
        assert_eq!(fs::read_dir(root.join(name)).unwrap().count(), 2, "something is left of a fill of {name}");
        let full = is_full(&volume.mountpoint);
        assert!(full || is_empty(&volume.mountpoint), "{name} is half filled");
        assert!(full || !matches!(said.get(name), Some(Said::Filled | Said::Removing)), "{name} lost its files");
    }
    for (name, said) in said {
        match said {
            Said::Made | Said::Filled => assert!(listed.contains_key(name), "{name} is lost"),
            Said::Removed => assert!(!listed.contains_key(name), "{name} came back"),
            Said::Making | Said::Removing => {}
        }
    }
    // Kept few, so that opening does not take longer from kill to kill.
    for name in listed.keys() {
        volumes.remove(name).unwrap();
    }
}

fn is_empty(data: &Path) -> bool {
    fs::read_dir(data).unwrap().next().is_none()
}

fn is_full(data: &Path) -> bool {
    let count = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
    let mode = fs::metadata(data).unwrap().permissions().mode() & 0o7777;
    count(data) == 21 && count(&data.join("d/e")) == 20 && mode == 0o751
}
