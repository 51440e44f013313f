//! What builds remember, and what `builder prune` makes of it.

use std::collections::BTreeSet;
use std::process::Command;

use testkit::Cli;

use crate::build::context;
use crate::build_mounts::{Way, each_way};
use crate::buildx_progress::parts;
use crate::support::{At, ours};

/// Prunes, with the flags, in the way that one builds.
fn prune(way: &Way<'_>, flags: &str) -> String {
    let mut command: Command = match way.cli {
        Some(cli) => {
            let mut command = way.at().daemon.command(cli).unwrap();
            command.args(["builder", "prune"]);
            command
        }
        None => way.plugged().command("buildx prune"),
    };
    let output = testkit::process::run(command.args(flags.split(' ')), b"").unwrap();
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout
}

/// How many steps of a build were known; it may fail.
fn known(way: &Way<'_>, flags: &str, text: &str) -> usize {
    let output = way.output(flags, &context(&[("Dockerfile", text)]));
    let told = output.stdout + &output.stderr;
    // An image that is begun with is no step.
    let is_known = |part: &&String| part.ends_with(": CACHED") && !part.contains("] FROM ");
    told.matches(" ---> Using cache\n").count() + parts(&told).iter().filter(is_known).count()
}

#[test]
fn privileged_a_prune_leaves_steps_of_images_that_are_tagged_or_used() {
    each_way(|way| {
        let (image, container) = (way.name("referred"), way.at().name("user"));
        let tagged = format!("FROM busybox\nENV A={image}\nRUN echo tagged > /a\nRUN echo last > /b\n");
        let used = format!("FROM busybox\nENV B={image}\nRUN echo used > /a\n");
        let failed = format!("FROM busybox\nENV C={image}\nRUN echo failed > /a\nRUN exit 3\n");
        // The container of a command that failed would be a user, too.
        let flags = if way.cli.is_some() { "--force-rm" } else { "" };
        let cached = |text: &str| known(way, flags, text);
        known(way, &format!("-t {image}"), &tagged);
        known(way, &format!("-t {image}-used"), &used);
        way.at().ok(&format!("create --name {container} {image}-used true"));
        // Its only name is another image's from here on.
        way.at().ok(&format!("tag busybox {image}-used"));
        cached(&failed);
        // BuildKit's clients are not told of configuration.
        let told = |steps: usize| if way.cli.is_some() { steps + 1 } else { steps };
        assert_eq!((cached(&tagged), cached(&used), cached(&failed)), (told(2), told(1), told(1)));
        prune(way, "-f");
        assert_eq!((cached(&tagged), cached(&used)), (told(2), told(1)));
        assert_eq!(cached(&failed), 0);
        prune(way, "-a -f");
        assert_eq!((cached(&tagged), cached(&used), cached(&failed)), (0, 0, 0));
        way.at().ok(&format!("rm {container}"));
        way.at().ok(&format!("rmi {image} {image}-used"));
    });
}

/// What the build cache takes that no image has.
fn cache_bytes(way: &Way<'_>) -> u64 {
    let told = way.at().daemon.get("/v1.51/system/df").unwrap().json().unwrap();
    let records = told["BuildCache"].as_array().cloned().unwrap_or_default();
    let own = records.iter().filter(|record| record["Shared"] == false && record["Type"] == "regular");
    own.filter_map(|record| record["Size"].as_u64()).sum()
}

fn layers_bytes(way: &Way<'_>) -> u64 {
    way.at().daemon.get("/v1.51/system/df").unwrap().json().unwrap()["LayersSize"].as_u64().unwrap()
}

/// With BuildKit only results are images: what else a build comes to is its cache's.
#[test]
fn privileged_steps_are_records_of_the_build_cache_and_no_images() {
    each_way(|way| {
        const BYTES: u64 = 3_000_000;
        let image = way.name("steps");
        let text = format!(
            "FROM busybox AS made\nENV A={image}\nRUN dd if=/dev/urandom of=/large bs=1000 count=3000 && echo 1 > /small\n\
             FROM busybox\nCOPY --from=made /small /\nRUN echo {image} > /name\n"
        );
        prune(way, "-a -f");
        // Each once, whatever its names.
        let all = || way.at().ok("images -aq --no-trunc").lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let (before, layers) = (all(), layers_bytes(way));
        let steps = if way.cli.is_some() { 4 } else { 3 };
        assert_eq!(known(way, &format!("-t {image}"), &text), 0);
        if way.cli == Some(Cli::Docker) {
            // dockerd's own builder has an image for each.
            assert_eq!(all().len(), before.len() + 4);
            way.at().ok(&format!("rmi {image}"));
            way.at().ok("image prune -f");
            assert_eq!(all(), before);
            return;
        }
        assert_eq!(all().len(), before.len() + 1);
        assert!(cache_bytes(way) >= BYTES && layers_bytes(way) < layers + BYTES);
        // Neither another daemon nor a prune of images makes them something else.
        way.at().ok("image prune -f");
        assert_eq!((known(way, &format!("-t {image}"), &text), all().len()), (steps, before.len() + 1));
        // An image that has lost its name is one of those that a prune of images takes, without what it was built from.
        way.at().ok(&format!("tag busybox {image}"));
        assert_eq!(way.at().ok("images -q --filter dangling=true").lines().count(), 1);
        assert!(way.at().ok("image prune -f").contains("deleted: sha256:"));
        assert_eq!(all(), before);
        assert_eq!(known(way, &format!("-t {image}"), &text), steps - 1);
        way.at().ok(&format!("tag busybox {image}"));
        way.at().ok("image prune -f");
        prune(way, "-f");
        assert_eq!((all(), cache_bytes(way), layers_bytes(way)), (before.clone(), 0, layers));
        assert_eq!(known(way, &format!("-t {image}"), &text), 0);
        // A prune of all takes what no image needs; that goes with the image.
        prune(way, "-a -f");
        assert_eq!((all().len(), cache_bytes(way)), (before.len() + 1, 0));
        assert!(layers_bytes(way) < layers + BYTES);
        way.at().ok(&format!("rmi {image}"));
        assert_eq!((all(), layers_bytes(way)), (before, layers));
    });
}

#[test]
fn privileged_steps_are_hidden_by_the_next_daemon_too() {
    ours(|daemon| {
        let at = crate::support::At { daemon, cli: testkit::Cli::Longshore };
        let directory =
            context(&[("Dockerfile", "FROM busybox AS a\nRUN echo 1 > /a\nFROM busybox\nCOPY --from=a /a /\n")]);
        at.ok(&format!("build -t hidden {}", directory.path().display()));
        let all = at.ok("images -aq");
        assert_eq!(all.lines().count(), 2, "{all}");
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        assert_eq!(at.ok("images -aq"), all);
        at.ok("rmi hidden");
        at.ok("builder prune -af");
        assert_eq!(std::fs::read_dir(daemon.scratch().data_root().join("build-steps")).unwrap().count(), 0);
    });
}
