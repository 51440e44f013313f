//! What commands write becomes their layer.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use testkit::Daemon;

use crate::build::context;
use crate::build_mounts::{Way, each_way};

/// The layers' directories that have this file.
fn layers_with(daemon: &Daemon, file: &str) -> Vec<PathBuf> {
    let layers = fs::read_dir(daemon.scratch().data_root().join("snapshots/l")).unwrap();
    layers.map(|layer| layer.unwrap().path()).filter(|layer| layer.join(file).exists()).collect()
}

/// Who has what since when, without what a container's start makes.
fn tree(way: &Way<'_>, image: &str) -> String {
    // The start of the container itself changes what these directories are in.
    let others = ["/proc", "/sys", "/dev", "/etc", "/.dockerenv"].map(|path| format!("! -path '{path}*'")).join(" ");
    let list = format!("find / -mindepth 1 -xdev {others} -exec stat -c '%n %A %u:%g %s %Y %h' {{}} ;");
    way.at().run(&format!("{image} {list}"))
}

#[test]
fn privileged_what_a_command_writes_is_its_layer_and_no_copy_of_it() {
    each_way(|way| {
        let daemon = way.at().daemon;
        if daemon.is_foreign() {
            // Its layers are its own.
            return;
        }
        let image = way.name("as-it-is");
        let file = way.cli.map_or("of-buildx".to_owned(), |cli| format!("of-{cli:?}"));
        let command = format!(
            "RUN mkdir -p /d/deep && echo hi > /d/{file} && ln /d/{file} /d/again && mkfifo /d/fifo \
             && stat -c %i /d/{file} > /d/number && chmod 700 / && touch -d @1000000000 /d /etc\n\
             RUN rm -r /d/deep && mkdir -m 750 /d/deep && touch /d/deep/new && touch -d @1000000000 /d/deep /d\n"
        );
        let directory = context(&[("Dockerfile", &format!("FROM busybox\n{command}"))]);
        way.build(&format!("--no-cache -t {image}"), &directory);
        let [layer] = &layers_with(daemon, &format!("d/{file}"))[..] else { panic!("one layer has the file") };
        let number = fs::read_to_string(layer.join("d/number")).unwrap();
        let own = fs::symlink_metadata(layer.join("d").join(&file)).unwrap();
        assert_eq!(own.ino().to_string(), number.trim(), "the file that the command has written");
        // What containers are given at their start is nobody's layer.
        for stub in [".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "proc", "sys", "dev"] {
            assert!(fs::symlink_metadata(layer.join(stub)).is_err(), "{stub}");
        }
        for directory in ["d", "etc"] {
            let time = fs::symlink_metadata(layer.join(directory)).unwrap().mtime();
            assert_eq!(time, 1_000_000_000, "{directory}");
        }
        // The directory says the same as the archive that others get.
        let before = tree(way, &image);
        assert!(before.contains("/d/deep/new") && before.contains("/d/fifo p"), "{before}");
        let archive = directory.path().join("image.tar");
        way.at().ok(&format!("save -o {} {image}", archive.display()));
        way.at().ok(&format!("rmi {image}"));
        way.at().ok("builder prune -af");
        assert_eq!(layers_with(daemon, &format!("d/{file}")), Vec::<PathBuf>::new());
        way.at().ok(&format!("load -i {}", archive.display()));
        assert_eq!(tree(way, &image), before);
        way.at().ok(&format!("rmi {image}"));
    });
}

/// A container that stays is still what the command has left.
#[test]
fn privileged_a_container_that_is_kept_keeps_its_files() {
    each_way(|way| {
        // BuildKit's clients keep none.
        if way.cli.is_none() || way.at().daemon.is_foreign() {
            return;
        }
        let image = way.name("kept");
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN echo mine > /mine\n")]);
        way.build(&format!("--no-cache --rm=false -t {image}"), &directory);
        let container = way.at().ok("ps -lq");
        assert!(way.at().ok(&format!("diff {container}")).contains("A /mine"));
        assert_eq!(way.at().run(&format!("{image} cat /mine")), "mine");
        // Its files were mounted without syncs, which the kernel does not forget.
        way.at().ok(&format!("start {container}"));
        assert_eq!(way.at().ok(&format!("wait {container}")), "0");
        way.at().ok(&format!("rm {container}"));
        way.at().ok(&format!("rmi {image}"));
    });
}

/// Where a directory has nothing to show, what is copied goes where its files are kept, past what the layers below had there.
#[test]
fn privileged_what_is_copied_into_empty_directories_shows_nothing_of_what_was_there() {
    each_way(|way| {
        let image = way.name("emptied");
        let lines = "FROM busybox\n\
                     RUN mkdir -p /gone/sub/old /gone/deep /empty /was/sub && touch /gone/sub/old/file /gone/top /was/sub/old && ln -s /was /link\n\
                     RUN rm -r /gone/sub /gone/top /gone/deep /was/sub && mkdir /was/sub && chmod 710 /empty\n\
                     COPY tree /gone/\n\
                     COPY tree /empty\n\
                     COPY tree/sub /link/sub/\n\
                     COPY tree tree/sub /link/new/\n\
                     COPY --chown=7:8 tree /link/new/owned\n\
                     RUN rm -r /empty/sub\n\
                     COPY tree/sub /empty/sub\n";
        let directory = context(&[("Dockerfile", lines), ("tree/sub/new", "1"), ("tree/top", "2")]);
        std::os::unix::fs::symlink("/etc", directory.path().join("tree/out")).unwrap();
        way.build(&format!("--no-cache -t {image}"), &directory);
        let list = "find /gone /empty /was -exec stat -c '%n %A %u:%g %s' {} ;";
        let found = || {
            let listed = way.at().run(&format!("{image} {list}"));
            let mut lines: Vec<_> = listed.lines().filter(|line| !line.contains(" d")).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let tree = |at: &str, owner: &str| {
            let file = |name: &str| format!("{at}/{name} -rw-r--r-- {owner} 1");
            [format!("{at}/out lrwxrwxrwx {owner} 4"), file("sub/new"), file("top")]
        };
        let mut expected =
            [tree("/gone", "0:0"), tree("/empty", "0:0"), tree("/was/new", "0:0"), tree("/was/new/owned", "7:8")]
                .concat();
        expected.extend(["/was/sub/new", "/was/new/new"].map(|path| format!("{path} -rw-r--r-- 0:0 1")));
        expected.sort();
        assert_eq!(found(), expected);
        assert_eq!(way.at().run(&format!("{image} stat -c %a /empty")), "710");
        // The archive says the same as the directories.
        let archive = directory.path().join("image.tar");
        way.at().ok(&format!("save -o {} {image}", archive.display()));
        way.at().ok(&format!("rmi {image}"));
        way.at().ok("builder prune -af");
        way.at().ok(&format!("load -i {}", archive.display()));
        assert_eq!(found(), expected);
        way.at().ok(&format!("rmi {image}"));
    });
}

/// What a build comes to is synced at its end: until then nothing waits for the disk.
#[test]
fn privileged_a_command_waits_for_no_sync() {
    each_way(|way| {
        if way.at().daemon.is_foreign() {
            return;
        }
        let image = way.name("unsynced");
        let directory = context(&[(
            "Dockerfile",
            "FROM busybox\nRUN grep ' / / .* overlay ' /proc/self/mountinfo > /mounted && sync /mounted\n",
        )]);
        way.build(&format!("--no-cache -t {image}"), &directory);
        assert!(way.at().run(&format!("{image} cat /mounted")).contains("volatile"));
        let own = way.at().run(&format!("{image} grep ' / / .* overlay ' /proc/self/mountinfo"));
        assert!(!own.contains("volatile"), "a container's files are its user's: {own}");
        way.at().ok(&format!("rmi {image}"));
    });
}
