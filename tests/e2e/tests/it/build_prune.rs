//! What builds remember, and what `builder prune` makes of it.

use std::process::Command;

use crate::build::context;
use crate::build_mounts::{Way, each_way};

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
    told.matches(" ---> Using cache\n").count() + told.matches(" CACHED\n").count()
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
