//! A budget for images: what makes room, and what stays.

use testkit::images::plan::Entry;
use testkit::images::write::{self, Compression};
use testkit::process::{DEADLINE, until};
use testkit::registry::{Debian, Served};
use testkit::{Cli, Daemon, images};

use crate::support::{At, ours};

/// busybox with a file of its own: nobody shares its layer.
fn image(name: &str) -> Served {
    let mut image = images::busybox().unwrap();
    image.layers[0].push(Entry::file("own", name));
    Served::of_layout(&write::oci_layout(&image, Compression::Gzip).unwrap()).unwrap()
}

fn at(daemon: &Daemon) -> At<'_> {
    At { daemon, cli: Cli::Longshore }
}

/// The names of all images, sorted, without the registry's.
fn names(at: &At<'_>) -> Vec<String> {
    let listed = at.ok("images --format {{.Repository}}");
    let mut names: Vec<String> = listed.lines().map(|name| name.rsplit('/').next().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn privileged_the_least_recently_used_images_make_room() {
    ours(|daemon| {
        let registry = Debian::start().unwrap();
        for name in ["one", "two", "three", "four"] {
            let mut served = image(name);
            served.manifests.insert("latest".to_owned(), served.manifest.clone());
            registry.push(&served, name).unwrap();
        }
        let host = registry.host();
        let pull = |at: &At<'_>, name: &str| at.ok(&format!("pull -q {host}/{name}"));
        at(daemon).ok("rmi busybox");
        pull(&at(daemon), "one");
        assert!(at(daemon).ok("image budget").contains("There is no budget"));
        let size: u64 = at(daemon).inspect(&format!("{host}/one"), "{{.Size}}").parse().unwrap();
        // Room for two, and a half.
        let marks = format!(r#""image-budget-high": {}, "image-budget-low": {}"#, size * 5 / 2, size * 2 + 100);
        daemon.scratch().write("daemon.json", &format!("{{{marks}}}")).unwrap();
        daemon.restart().unwrap();
        pull(&at(daemon), "two");
        // Now the other one is older, for the next daemon, too.
        at(daemon).run(&format!("{host}/one true"));
        daemon.restart().unwrap();
        let told = at(daemon).ok("image budget --format '{{.Name}} {{.Goes}} {{.Why}}'");
        let line = |name: &str, rest: &str| format!("{host}/{name}:latest {rest}");
        assert_eq!(told, [line("two", "no there is room"), line("one", "no there is room")].join("\n"));
        pull(&at(daemon), "three");
        let left = |names_: [&str; 2]| (names(&at(daemon)) == names_).then_some(());
        until("the older one makes room", DEADLINE, || left(["one", "three"])).unwrap();
        let pinned = format!(r#"{{{marks}, "image-pins": ["{host}/one"]}}"#);
        daemon.scratch().write("daemon.json", &pinned).unwrap();
        daemon.restart().unwrap();
        pull(&at(daemon), "four");
        let left = |names_: [&str; 2]| (names(&at(daemon)) == names_).then_some(());
        until("the one that is not pinned makes room", DEADLINE, || left(["four", "one"])).unwrap();
        // What a container has stays, and the dry run says so; a daemon that wants to have less begins at the next pull.
        at(daemon).ok(&format!("create --name holds {host}/four"));
        daemon
            .scratch()
            .write(
                "daemon.json",
                &pinned.replace(&(size * 5 / 2).to_string(), "2").replace(&(size * 2 + 100).to_string(), "1"),
            )
            .unwrap();
        daemon.restart().unwrap();
        let told = at(daemon).ok("image budget --format '{{.Name}} {{.Goes}} {{.Why}}'");
        let pin = format!("no pinned by image-pins {host}/one");
        assert_eq!(told, [line("one", &pin), line("four", "no container holds has it")].join("\n"));
        at(daemon).ok("rm holds");
        let told = at(daemon).ok("image budget");
        assert!(told.contains("least recently used") && told.starts_with("Images take "), "{told}");
    });
}
