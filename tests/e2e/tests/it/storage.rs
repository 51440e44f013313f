//! Storage drivers: what people do with images and containers works alike on each.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;
use testkit::disk::SmallDisk;
use testkit::images::Archive;
use testkit::process::{DEADLINE, run, until};
use testkit::registry::Debian;
use testkit::{Cli, Daemon, Output};

use crate::support::{At, each, ours};

/// What this machine has beside overlay2, with where its data is to be.
fn on_each(test: impl Fn(Daemon, &str, &Path)) {
    if testkit::skip::without_root() {
        return;
    }
    let disk = SmallDisk::btrfs().unwrap();
    let fuse = testkit::skip::unless_fuse_overlayfs();
    for driver in ["vfs", "fuse-overlayfs", "btrfs"] {
        let place = match (driver, &disk) {
            ("fuse-overlayfs", _) if fuse.is_none() => continue,
            ("btrfs", None) => continue,
            ("btrfs", Some(disk)) => tempfile::tempdir_in(disk.path()).unwrap(),
            _ => tempfile::tempdir().unwrap(),
        };
        println!("on {driver}");
        let root = place.path().join("data");
        let data_root = root.display().to_string();
        let own = format!("own={}", testkit::paths::dist().join("longshore-runtime").display());
        let options = ["--data-root", &data_root, "-s", driver, "--add-runtime", &own];
        let daemon = match fuse.as_deref().and_then(Path::parent).filter(|_| driver == "fuse-overlayfs") {
            Some(programs) => Daemon::start_finding(programs, &options).unwrap(),
            None => Daemon::start_with(&options).unwrap(),
        };
        if daemon.is_foreign() {
            return testkit::skip::report("this is about a daemon of the test's own");
        }
        if driver != "fuse-overlayfs" {
            daemon.load(Archive::Busybox).unwrap();
        }
        test(daemon, driver, &root.join("drivers").join(driver));
    }
}

#[test]
fn privileged_containers_and_images_are_as_ever_on_every_driver() {
    on_each(|daemon, driver, _| {
        each(&daemon, |at| {
            let status = match driver {
                "vfs" => "null",
                "btrfs" => r#"[["Btrfs",""]]"#,
                _ => "[]",
            };
            assert_eq!(at.ok("info -f '{{.Driver}} {{json .DriverStatus}}'"), format!("{driver} {status}"));
            containers(at, driver);
            committed(at);
            built(at);
            built_with_mounts(at);
            saved(at);
        });
        daemon.finish().unwrap();
    });
}

fn containers(at: &At<'_>, driver: &str) {
    assert_eq!(at.run("busybox echo hi"), "hi");
    let name = at.name("c");
    let script =
        "echo mine >/mine; mkdir /d; echo x >/d/y; echo more >>/etc/passwd; while ! test -e /end; do sleep 0.1; done";
    at.start(&name, &format!("-v {name}:/bin busybox sh -c '{script}'"));
    assert_eq!(at.inspect(&name, "{{.Driver}} {{.GraphDriver.Name}}"), format!("{driver} {driver}"));
    let data = at.inspect(&name, "{{json .GraphDriver.Data}}");
    let image = at.ok("image inspect -f '{{json .GraphDriver}}' busybox");
    if driver == "fuse-overlayfs" {
        assert!(data.contains(r#""UpperDir":"/"#) && image.contains(r#""UpperDir":"/"#), "{data} {image}");
    } else {
        assert_eq!((data.as_str(), image), ("null", format!(r#"{{"Data":null,"Name":"{driver}"}}"#)));
    }
    let changed = || at.ok(&format!("diff {name}"));
    until("the container has written", DEADLINE, || changed().contains("/etc/passwd").then_some(())).unwrap();
    // Whether the directory itself is told depends on how soon after the files of the start it was changed.
    let told: Vec<String> = changed().lines().filter(|line| *line != "C /etc").map(str::to_owned).collect();
    assert_eq!(told, ["A /d", "A /d/y", "C /etc/passwd", "A /mine"]);
    assert_eq!(at.ok(&format!("exec {name} cat /d/y")), "x");
    // The volume was filled from the image.
    assert!(at.ok(&format!("exec {name} ls /bin")).contains("sh"));
    assert!(at.ok(&format!("cp {name}:/mine -")).contains("mine"));
    at.ok(&format!("cp {} {name}:/end", std::env::current_exe().unwrap().display()));
    assert_eq!(at.ok(&format!("wait {name}")), "0");
    // Stopped.
    assert!(changed().contains("A /end"));
    assert!(at.ok(&format!("cp {name}:/d/y -")).contains('x'));
    assert!(at.ok(&format!("export {name}")).contains("mine"));
    let size: i64 = at.ok(&format!("inspect -s -f '{{{{.SizeRw}}}}' {name}")).parse().unwrap();
    let length = fs::metadata(std::env::current_exe().unwrap()).unwrap().len();
    assert!((length..length + 65536).contains(&(size as u64)), "{size} of {length}");
    at.remove(&name);
    at.ok(&format!("volume rm {name}"));
    // Another one has nothing of it.
    assert_eq!(at.run("busybox sh -c 'test ! -e /mine && ! grep more /etc/passwd'"), "");
    let mounted = "--mount type=image,source=busybox,target=/image busybox test -x /image/bin/sh";
    at.run(mounted);
    at.ok("system df -v");
}

fn committed(at: &At<'_>) {
    let (name, image) = (at.name("changed"), at.image("committed"));
    let script = "mkdir /new; echo a >/new/a; ln /new/a /new/b; rm -r /etc/group; ln -s a /new/c; chmod 700 /etc";
    at.ok(&format!("run --network none --name {name} busybox sh -c '{script}'"));
    at.ok(&format!("commit {name} {image}"));
    let look = "cat /new/a /new/b /new/c; test -e /etc/group || echo gone; stat -c %a /etc";
    assert_eq!(at.run(&format!("{image} sh -c '{look}'")), "a\na\na\ngone\n700");
    // Above it again.
    at.remove(&name);
    at.ok(&format!("run --network none --name {name} {image} rm -r /new"));
    assert_eq!(at.ok(&format!("diff {name}")), "D /new");
    at.remove(&name);
    at.ok(&format!("rmi {image}"));
}

fn built(at: &At<'_>) {
    let image = at.image("built");
    let file = "FROM busybox\nRUN echo one >/one\nWORKDIR /w\nRUN rm /one && echo two >/w/two\n\
                FROM busybox\nCOPY --from=0 /w /copied\nRUN cat /copied/two >/three\nCMD cat /three";
    let built = at.with_input(&format!("build -q -t {image} -"), file.as_bytes());
    assert_eq!(built.code, 0, "{built:?}");
    assert_eq!(at.run(&image), "two");
    at.ok(&format!("rmi {image}"));
}

fn built_with_mounts(at: &At<'_>) {
    let image = at.image("mounted");
    let file = "FROM busybox\nRUN mkdir -p /s/t && echo one >/s/t/f\nRUN echo two >>/s/t/f\n\
                FROM busybox\n\
                RUN --mount=from=0,source=/s,target=/ro --mount=from=0,source=/s,target=/made/rw,rw \
                --mount=from=0,source=/s/t/f,target=/file,rw --mount=type=cache,from=0,source=/s/t,target=/c \
                --mount=type=tmpfs,target=/t ! touch /ro/x 2>/dev/null && cat /ro/t/f /c/f >/got && \
                rm /made/rw/t/f && echo new >/file && cat /file >>/got && ls -A /made/rw/t >>/got\n\
                RUN --mount=from=0,target=/all cat /all/s/t/f >>/got\n\
                CMD cat /got; ls -d /ro /made /file /c /t /all 2>/dev/null; true";
    let built = at.with_input(&format!("build -q --no-cache -t {image} -"), file.as_bytes());
    assert_eq!(built.code, 0, "{built:?}");
    assert_eq!(at.run(&image), "one\ntwo\none\ntwo\nnew\none\ntwo");
    at.ok(&format!("rmi {image}"));
}

fn saved(at: &At<'_>) {
    let (image, dir) = (at.image("saved"), tempfile::tempdir().unwrap());
    let archive = dir.path().join("archive").display().to_string();
    let built = at.with_input(&format!("build -q -t {image} -"), b"FROM busybox\nRUN echo saved >/it\nCMD cat /it\n");
    assert_eq!(built.code, 0, "{built:?}");
    let id = at.inspect(&image, "{{.Id}}");
    at.ok(&format!("save -o {archive} {image}"));
    at.ok(&format!("rmi {image}"));
    at.ok(&format!("load -i {archive}"));
    assert_eq!((at.inspect(&image, "{{.Id}}"), at.run(&image)), (id.clone(), "saved".to_owned()));
    let registry = Debian::start().unwrap();
    let pushed = format!("{}/saved", registry.host());
    at.ok(&format!("tag {image} {pushed}"));
    at.ok(&format!("push -q {pushed}"));
    at.ok(&format!("rmi {image} {pushed}"));
    at.ok(&format!("pull -q {pushed}"));
    assert_eq!((at.inspect(&pushed, "{{.Id}}"), at.run(&pushed)), (id, "saved".to_owned()));
    at.ok(&format!("rmi {pushed}"));
}

#[test]
fn privileged_nothing_stays_of_what_is_removed_on_any_driver() {
    on_each(|mut daemon, _, root| {
        let at = At { daemon: &daemon, cli: Cli::Longshore };
        at.ok("run --network none --name kept busybox sh -c 'echo mine >/mine'");
        daemon.kill9().unwrap();
        let planted = plant(&root.join("snapshots"));
        daemon.restart().unwrap();
        let gone = || planted.iter().all(|file| !file.exists()).then_some(());
        until("nothing of what no record owns is left", DEADLINE, gone).unwrap();
        let at = At { daemon: &daemon, cli: Cli::Longshore };
        assert_eq!(at.ok("diff kept"), "A /mine");
        at.ok("rm kept");
        at.ok("rmi busybox");
        let count = |name| fs::read_dir(root.join("snapshots").join(name)).map_or(0, Iterator::count);
        let empty = || (["l", "m", "c", "new", "trash"].map(count) == [0; 5]).then_some(());
        until("nothing of the image is left", DEADLINE, empty).unwrap();
        daemon.finish().unwrap();
    });
}

/// Puts there what a death at a bad moment may leave.
fn plant(root: &Path) -> Vec<std::path::PathBuf> {
    let id = "c0ffee".repeat(11)[..64].to_owned();
    let files = [
        format!("l/{}/etc/file", &id[..32]),
        format!("m/{}/etc/file", &id[..32]),
        format!("c/{id}/fs/file"),
        "new/0123456789abcdef/file".to_owned(),
        "trash/0123456789abcdef/deep/file".to_owned(),
    ];
    // Not every driver puts trees together.
    let merged = root.join("m");
    let is_of_driver = |file: &std::path::PathBuf| merged.exists() || !file.starts_with(&merged);
    let planted: Vec<_> = files.iter().map(|file| root.join(file)).filter(is_of_driver).collect();
    for file in &planted {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "left").unwrap();
    }
    planted
}

/// The processes that serve roots below a directory.
fn servers(below: &Path) -> Vec<i32> {
    let is_one = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.contains("fuse-overlayfs") && words.contains(&format!("{}/", below.display()))
    };
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter(is_one).collect()
}

#[test]
fn privileged_what_serves_a_root_outlives_the_daemon_and_goes_with_its_container() {
    on_each(|mut daemon, driver, root| {
        if driver != "fuse-overlayfs" {
            return daemon.finish().unwrap();
        }
        let at = At { daemon: &daemon, cli: Cli::Longshore };
        at.start("runs", "busybox sh -c 'while ! test -e /end; do sleep 0.1; done; cat /end'");
        at.ok("run --network none --name stopped busybox dd if=/dev/zero of=/big bs=1M count=64");
        let gone = |count| move || (servers(root).len() == count).then_some(());
        until("the root of what ended is served no more", DEADLINE, gone(1)).unwrap();
        let running = servers(root);
        // One that the daemon has started for itself: nobody reads what it sends.
        let mut export = at.command("export stopped").stdout(Stdio::piped()).spawn().unwrap();
        until("the stopped one is looked at", DEADLINE, gone(2)).unwrap();
        daemon.kill9().unwrap();
        export.kill().unwrap();
        export.wait().unwrap();
        until("what a dead daemon looked at is served no more", DEADLINE, gone(1)).unwrap();
        assert_eq!(servers(root), running);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&root.display().to_string()), "{mounts}");
        daemon.restart().unwrap();
        let at = At { daemon: &daemon, cli: Cli::Longshore };
        assert_eq!(at.ok("diff stopped"), "A /big");
        at.ok("exec runs sh -c 'echo done >/half; mv /half /end'");
        assert_eq!(at.ok("wait runs"), "0");
        assert_eq!(at.ok("logs runs"), "done");
        assert_eq!(at.ok("diff runs"), "A /end");
        // Another runtime finds its root attached in a mount namespace.
        assert_eq!(at.run("--runtime own busybox echo hi"), "hi");
        until("nothing is served", DEADLINE, gone(0)).unwrap();
        daemon.finish().unwrap();
    });
}

#[test]
fn privileged_images_of_another_driver_are_not_seen_and_back_with_it() {
    ours(|daemon| {
        let with = |daemon: &mut Daemon, text: &str| {
            daemon.scratch().write("daemon.json", text).unwrap();
            daemon.restart().unwrap();
        };
        let vfs = r#"{"storage-driver":"vfs"}"#;
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("run --network none --name kept -v data:/data busybox sh -c 'echo mine >/mine; echo x >/data/x'");
        with(daemon, vfs);
        let at = At { daemon, cli: Cli::Longshore };
        assert_eq!((at.ok("images -q"), at.ok("ps -aq")), (String::new(), String::new()));
        assert!(daemon.scratch().log().contains("not seen"), "{}", daemon.scratch().log());
        daemon.load(Archive::Busybox).unwrap();
        at.ok("run --network none --name other busybox true");
        with(daemon, "{}");
        let at = At { daemon, cli: Cli::Longshore };
        assert_eq!(at.ok("ps -a --format '{{.Names}}'"), "kept");
        assert_eq!(
            (at.ok("diff kept"), at.inspect("kept", "{{.Driver}}")),
            ("A /data\nA /mine".into(), "overlay2".into())
        );
        assert_eq!(at.run("-v data:/data busybox cat /data/x"), "x");
        // One that runs is not left alone.
        at.start("runs", "busybox sleep 1000");
        daemon.scratch().write("daemon.json", vfs).unwrap();
        let told = format!("{:?}", daemon.restart().unwrap_err());
        assert!(told.contains("container runs runs on the storage driver overlay2: stop it"), "{told}");
        with(daemon, "{}");
        let at = At { daemon, cli: Cli::Longshore };
        assert_eq!(at.inspect("runs", "{{.State.Running}}"), "true");
        at.ok("rm -f runs kept");
        with(daemon, vfs);
        At { daemon, cli: Cli::Longshore }.ok("rm other");
        with(daemon, "{}");
    });
}

/// Starts one more daemon on this data root, which must end by itself.
fn refused(daemon: &Daemon, data: &Path, change: impl FnOnce(&mut Command)) -> Output {
    let scratch = daemon.scratch().path();
    let mut other = Command::new(daemon.dist().join("longshored"));
    other.arg(format!("--data-root={}", data.display()));
    other.arg(format!("--exec-root={}", scratch.join("other-exec").display()));
    other.arg(format!("--host=unix://{}", scratch.join("other.sock").display()));
    other.arg(format!("--pidfile={}", scratch.join("other.pid").display()));
    other.arg("--bridge=none");
    change(&mut other);
    run(&mut other, b"").unwrap()
}

#[test]
fn privileged_drivers_that_cannot_be_are_refused_in_docker_s_words() {
    ours(|daemon| {
        let data = daemon.scratch().path().join("other-data");
        let removed = "[graphdriver] ERROR: the aufs storage-driver has been deprecated and removed; visit \
                       https://docs.docker.com/go/storage-driver/ for more information: aufs";
        for (driver, sentence) in [
            ("aufs", removed),
            ("zfs", "prerequisites for driver not satisfied (wrong filesystem?): zfs"),
            ("btrfs", "prerequisites for driver not satisfied (wrong filesystem?): btrfs"),
            ("nothing", "driver not supported: nothing"),
        ] {
            let output = refused(daemon, &data, |other| _ = other.args(["-s", driver]));
            let sentence = format!("error initializing graphdriver: {sentence}");
            assert!(output.code == 1 && output.stderr.contains(&sentence), "{driver}: {output:?}");
        }
        let nowhere = |other: &mut Command| _ = other.env("PATH", &data).args(["-s", "fuse-overlayfs"]);
        let output = refused(daemon, &data, nowhere);
        let sentence = "driver not supported (there is no program fuse-overlayfs in PATH): fuse-overlayfs";
        assert!(output.code == 1 && output.stderr.contains(sentence), "{output:?}");
        let by_environment = |other: &mut Command| _ = other.env("DOCKER_DRIVER", "devicemapper").args(["-s", "vfs"]);
        let output = refused(daemon, &data, by_environment);
        assert!(output.code == 1 && output.stderr.contains("the devicemapper storage-driver"), "{output:?}");
    });
}

#[test]
fn privileged_where_overlays_cannot_be_the_next_driver_is_taken_and_told() {
    if testkit::skip::without_root() {
        return;
    }
    // As in a container of another engine: an overlay does not take another one's files as its upper ones.
    let disk = SmallDisk::new(64).unwrap();
    let at = |name: &str| disk.path().join(name);
    ["lower", "upper", "work", "merged"].iter().for_each(|name| fs::create_dir(at(name)).unwrap());
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    );
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "-o", &options, "overlay"]).arg(at("merged"));
    assert_eq!(run(&mut mount, b"").unwrap().code, 0);
    let daemon = Daemon::start_with(&["--data-root", &at("merged/data").display().to_string()]).unwrap();
    if !daemon.is_foreign() {
        daemon.load(Archive::Busybox).unwrap();
        let at = At { daemon: &daemon, cli: Cli::Longshore };
        assert_eq!((at.ok("info -f '{{.Driver}}'"), at.run("busybox echo hi")), ("vfs".into(), "hi".into()));
        let log = daemon.scratch().log();
        assert!(log.contains("overlay2") && log.contains("the next one is tried"), "{log}");
    }
    daemon.finish().unwrap();
    rustix::mount::unmount(at("merged"), UnmountFlags::DETACH).unwrap();
}
