//! A budget for images: what makes room, and what stays.

use serde_json::{Value, json};
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

/// A registry with these, as `latest`.
fn registry(names: &[&str]) -> Debian {
    let registry = Debian::start().unwrap();
    for name in names {
        registry.push(&image(name).tagged("latest"), name).unwrap();
    }
    registry
}

fn at(daemon: &Daemon) -> At<'_> {
    At { daemon, cli: Cli::Longshore }
}

fn told(daemon: &Daemon) -> Value {
    daemon.get("/longshore/images/budget").unwrap().json().unwrap()
}

/// What all images take.
fn total(daemon: &Daemon) -> u64 {
    told(daemon)["TotalBytes"].as_u64().unwrap()
}

/// Restarts with these marks; images may go as soon as they are not used.
fn with_budget(daemon: &mut Daemon, high: u64, low: u64, more: Value) {
    let mut keys = json!({ "image-budget-high": high, "image-budget-low": low, "image-budget-min-age": 0 });
    keys.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    daemon.scratch().write("daemon.json", &keys.to_string()).unwrap();
    daemon.restart().unwrap();
}

/// `name platform goes why` of each image, the least recently used first.
fn lines(daemon: &Daemon) -> Vec<String> {
    let printed = at(daemon).ok("image budget --format '{{.Name}} {{.Platform}} {{.Goes}} {{.Why}}'");
    printed.lines().map(str::to_owned).collect()
}

/// The names of all images, sorted, without the registry's.
fn names(at: &At<'_>) -> Vec<String> {
    let listed = at.ok("images --format {{.Repository}}");
    let mut names: Vec<String> = listed.lines().map(|name| name.rsplit('/').next().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Waits for these to be all that is left, and for the look to have ended.
fn await_names(daemon: &Daemon, wanted: &[&str]) {
    let left = || (names(&at(daemon)) == wanted).then_some(());
    until("room is made", DEADLINE, left)
        .unwrap_or_else(|err| panic!("{err}: {:?} {:?}", names(&at(daemon)), lines(daemon)));
}

#[test]
fn privileged_the_least_recently_used_images_make_room() {
    ours(|daemon| {
        let registry = registry(&["one", "two", "three", "four"]);
        let host = registry.host();
        let pull = |at: &At<'_>, name: &str| at.ok(&format!("pull -q {host}/{name}"));
        at(daemon).ok("rmi busybox");
        pull(&at(daemon), "one");
        assert!(at(daemon).ok("image budget").contains("There is no budget"));
        // More than the unpacked layer: as it came it is kept, too.
        let size = total(daemon);
        let layers: u64 = at(daemon).inspect(&format!("{host}/one"), "{{.Size}}").parse().unwrap();
        assert!(size > layers + layers / 5, "{size} {layers}");
        // Room for two, and a half.
        let (high, low) = (size * 5 / 2, size * 2 + size / 10);
        with_budget(daemon, high, low, json!({}));
        pull(&at(daemon), "two");
        // Now the other one is older, for the next daemon, too.
        at(daemon).run(&format!("{host}/one true"));
        daemon.restart().unwrap();
        let line = |name: &str, rest: &str| format!("{host}/{name}:latest linux/amd64 {rest}");
        assert_eq!(lines(daemon), [line("two", "no there is room"), line("one", "no there is room")]);
        pull(&at(daemon), "three");
        await_names(daemon, &["one", "three"]);
        with_budget(daemon, high, low, json!({ "image-pins": [format!("{host}/one")] }));
        pull(&at(daemon), "four");
        await_names(daemon, &["four", "one"]);
        // What a container has stays, and the dry run says so; a daemon that wants to have less begins at the next pull.
        at(daemon).ok(&format!("create --name holds {host}/four"));
        with_budget(daemon, 2, 1, json!({ "image-pins": [format!("{host}/one")] }));
        let pin = format!("no pinned by image-pins {host}/one");
        assert_eq!(lines(daemon), [line("one", &pin), line("four", "no container holds has it")]);
        at(daemon).ok("rm holds");
        let told = at(daemon).ok("image budget");
        assert!(told.contains("least recently used") && told.starts_with("Images take "), "{told}");
    });
}

#[test]
fn privileged_what_may_be_nowhere_else_stays_whatever_the_budget() {
    ours(|daemon| {
        let registry = registry(&["one", "two", "three"]);
        let host = registry.host();
        // Somebody's own name for what was pulled; what was built, committed without a name, and loaded.
        let committed = {
            let at = at(daemon);
            at.ok(&format!("pull -q {host}/one"));
            at.ok(&format!("pull -q {host}/two"));
            at.ok(&format!("tag {host}/one kept:1"));
            at.ok(&format!("create --name source {host}/one"));
            let committed = at.ok("commit source");
            at.ok("rm source");
            let context = tempfile::tempdir().unwrap();
            std::fs::write(context.path().join("Dockerfile"), "FROM busybox\nLABEL made=here\n").unwrap();
            at.ok(&format!("build -q -t built:1 {}", context.path().display()));
            committed
        };
        with_budget(daemon, 2, 1, json!({}));
        let at = at(daemon);
        at.ok(&format!("pull -q {host}/three"));
        let gone = || (at.line(&format!("image inspect {host}/two")).code != 0).then_some(());
        until("what a registry has goes", DEADLINE, gone).unwrap();
        for kept in ["kept:1", "built:1", "busybox", &committed, &format!("{host}/one")] {
            at.ok(&format!("image inspect {kept}"));
        }
        let why = |name: &str| lines(daemon).into_iter().find(|line| line.starts_with(name)).unwrap();
        assert!(why("built:1").ends_with("no registry is known to have built:1: it may be nowhere else"));
        assert!(why(&format!("{host}/one")).ends_with("no registry is known to have kept:1: it may be nowhere else"));
    });
}

#[test]
fn privileged_platforms_of_one_name_go_together_or_stay_together() {
    ours(|daemon| {
        let registry = registry(&["other", "last"]);
        let host = registry.host();
        let arm64 = {
            let Served { layers, blobs, .. } = Served::new(&[100_000]);
            let config = blobs.into_values().find(|blob| blob.starts_with(b"{")).unwrap();
            Served::of(layers, String::from_utf8(config).unwrap().replace("amd64", "arm64").as_bytes())
        };
        registry.push(&Served::index(&[("amd64", &image("two")), ("arm64", &arm64)]), "two").unwrap();
        at(daemon).ok("rmi busybox");
        let name = format!("{host}/two:1");
        at(daemon).ok(&format!("pull -q {name}"));
        at(daemon).ok(&format!("pull -q --platform linux/arm64 {name}"));
        let size = total(daemon);
        with_budget(daemon, size * 5 / 2, size * 21 / 10, json!({}));
        // A stopped container of the one that the name does not mean keeps both, and the younger image goes.
        at(daemon).ok(&format!("create --pull never --platform linux/arm64 --name holds {name}"));
        at(daemon).ok(&format!("pull -q {host}/other"));
        at(daemon).ok(&format!("pull -q {host}/last"));
        await_names(daemon, &["last", "two"]);
        let id = at(daemon).inspect("holds", "{{.Image}}");
        let of = |platform: &str| at(daemon).ok(&format!("image inspect -f {{{{.Id}}}} --platform {platform} {name}"));
        assert_eq!(of("linux/arm64"), id);
        let here = of("linux/amd64");
        with_budget(daemon, 2, 1, json!({}));
        let told = lines(daemon);
        let with = format!("{name} linux/amd64 no it goes with {} alone: container holds has it", &id[7..19]);
        let own = format!("{name} linux/arm64 no container holds has it");
        assert!(told.contains(&with) && told.contains(&own), "{told:?}");
        // Nobody needs either: both go, and nothing of them is left.
        at(daemon).ok("rm holds");
        at(daemon).ok(&format!("pull -q {host}/other"));
        at(daemon).ok(&format!("pull -q {host}/last"));
        let gone =
            || [&here, &id].iter().all(|id| at(daemon).line(&format!("image inspect {id}")).code != 0).then_some(());
        until("both go", DEADLINE, gone).unwrap();
    });
}

#[test]
fn privileged_what_a_build_began_with_stays_until_it_ends() {
    ours(|daemon| {
        let registry = registry(&["one", "two", "three"]);
        let host = registry.host();
        at(daemon).ok(&format!("pull -q {host}/one"));
        at(daemon).ok(&format!("pull -q {host}/two"));
        with_budget(daemon, 2, 1, json!({}));
        let at = at(daemon);
        let context = tempfile::tempdir().unwrap();
        let text = format!(
            "FROM {host}/one AS first\nFROM {host}/two\nRUN echo begun; sleep 1000\nCOPY --from=first /own /\n"
        );
        std::fs::write(context.path().join("Dockerfile"), text).unwrap();
        let mut client = at.spawn(&format!("build --force-rm {}", context.path().display()));
        client.read_until("begun\n").unwrap();
        let why =
            |name: &str| lines(daemon).into_iter().find(|line| line.starts_with(&format!("{host}/{name}:"))).unwrap();
        assert!(why("one").ends_with(" no a build or a push needs it"), "{}", why("one"));
        // A look meanwhile leaves it.
        at.ok(&format!("pull -q {host}/three"));
        let gone = || (at.line(&format!("image inspect {host}/three")).code != 0).then_some(());
        until("the budget is looked at", DEADLINE, gone).unwrap();
        at.ok(&format!("image inspect {host}/one"));
        client.signal(rustix::process::Signal::INT).unwrap();
        client.wait().unwrap();
        let free = || why("one").ends_with(" yes least recently used").then_some(());
        until("the build has ended", DEADLINE, free).unwrap();
    });
}

#[test]
fn privileged_what_was_just_used_stays_for_its_time() {
    ours(|daemon| {
        let registry = registry(&["one", "two"]);
        let host = registry.host();
        daemon.scratch().write("daemon.json", r#"{"image-budget-high": "1k", "image-budget-low": 1}"#).unwrap();
        daemon.restart().unwrap();
        for name in ["one", "two"] {
            at(daemon).ok(&format!("pull -q {host}/{name}"));
        }
        let told = lines(daemon);
        let recent = told.iter().filter(|line| line.ends_with("no it was used less than 600 seconds ago")).count();
        assert_eq!(recent, 2, "{told:?}");
    });
}
