//! `build` that does not come to its end: nothing stays of it but what it came to.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, Piped};

use crate::support::{At, on_both, ours};

/// A directory with a Dockerfile of this text.
fn context(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Dockerfile"), text).unwrap();
    directory
}

/// The container that a build says that it runs in.
fn container(printed: &str) -> String {
    let (_, rest) = printed.rsplit_once(" ---> Running in ").unwrap_or_else(|| panic!("nothing runs: {printed}"));
    rest.split_whitespace().next().unwrap().to_owned()
}

/// Starts a build; answers when it has printed `text`, with its container.
fn begin(at: &At<'_>, flags: &str, directory: &tempfile::TempDir, text: &str) -> (Piped, String) {
    let mut client = at.spawn(&format!("build {flags} {}", directory.path().display()));
    let printed = client.read_until(text).unwrap();
    (client, container(&printed))
}

/// Waits until there is no such container.
fn await_removal(at: &At<'_>, id: &str) {
    let gone = || (at.line(&format!("container inspect {id}")).code != 0).then_some(());
    until("the container of the build is gone", DEADLINE, gone).unwrap();
}

/// What is in these directories of the data root.
fn left(daemon: &Daemon, names: &[&str]) -> Vec<PathBuf> {
    let entries = |name: &&str| fs::read_dir(daemon.scratch().data_root().join(name)).into_iter().flatten();
    names.iter().flat_map(entries).map(|entry| entry.unwrap().path()).collect()
}

/// Where something would be left of a build.
const PLACES: [&str; 4] = ["builds", "build-containers", "containers", "snapshots/c"];

/// No container, no directory of a build and no snapshot that is written to.
pub(crate) fn await_nothing(at: &At<'_>) {
    let nothing = || {
        let left = left(at.daemon, &PLACES);
        (left.is_empty() && at.ok("ps -aq").is_empty()).then_some(())
    };
    until("nothing is left of the build", DEADLINE, nothing)
        .unwrap_or_else(|err| panic!("{err}: {:?}", left(at.daemon, &PLACES)));
}

#[test]
fn privileged_a_build_whose_client_goes_ends() {
    on_both(|at| {
        // Words of its own: nobody else's build may be what is known of it.
        let own = at.name("gone");
        let directory = context(&format!("FROM busybox\nRUN echo {own}\nRUN echo begun; sleep 1000\n"));
        for signal in [Signal::KILL, Signal::INT] {
            let (client, id) = begin(at, "--force-rm", &directory, "begun\n");
            client.signal(signal).unwrap();
            // Docker's client ends what is interrupted with 0 now and then.
            let code = client.wait().unwrap().code;
            assert!(code != 0 || (signal == Signal::INT && at.cli == Cli::Docker));
            await_removal(at, &id);
        }
        // What it had come to is known.
        let (client, id) = begin(at, "--force-rm", &directory, "begun\n");
        client.signal(Signal::KILL).unwrap();
        client.wait().unwrap();
        await_removal(at, &id);
    });
}

#[test]
fn privileged_containers_of_commands_that_fail_are_kept_unless_they_are_not_wanted() {
    on_both(|at| {
        let directory = context("FROM busybox\nRUN exit 5\n");
        for (flags, stays) in
            [("", true), ("--force-rm", false), ("--rm=false", true), ("--rm=false --force-rm", false)]
        {
            let output = at.line(&format!("build --no-cache {flags} {}", directory.path().display()));
            assert_eq!(output.code, 5, "{output:?}");
            let id = container(&output.stdout);
            let removed = output.stdout.contains(&format!(" ---> Removed intermediate container {id}\n"));
            assert_eq!(removed, !stays, "{flags}: {}", output.stdout);
            match stays {
                true => drop(at.ok(&format!("rm {id}"))),
                false => await_removal(at, &id),
            }
        }
        // What cannot be started has a container, too.
        let directory = context("FROM busybox\nRUN [\"/none\"]\n");
        let output = at.line(&format!("build --no-cache --force-rm {}", directory.path().display()));
        assert_eq!(output.code, 1, "{output:?}");
        await_removal(at, &container(&output.stdout));
    });
}

#[test]
fn privileged_builds_of_a_dead_daemon_leave_nothing_and_go_on() {
    ours(|daemon| {
        let text = "FROM busybox\nRUN echo one > /one\nRUN [ -e /one ] && echo begun; [ -e /go ] || sleep 1000\n";
        let directory = context(text);
        let build = format!("build -t dead --build-arg GO=1 {}", directory.path().display());
        for cli in daemon.clis() {
            let (client, _) = begin(&At { daemon, cli }, "", &directory, "begun\n");
            daemon.kill9().unwrap();
            drop(client);
            daemon.restart().unwrap();
            await_nothing(&At { daemon, cli });
        }
        // The first command was done once; nothing half-made has got a name.
        let at = At { daemon, cli: daemon.clis()[0] };
        at.fails("image inspect dead", 1, "No such image: dead");
        let next = "FROM busybox\nRUN echo one > /one\nRUN cat /one\n";
        fs::write(directory.path().join("Dockerfile"), next).unwrap();
        let printed = at.ok(&build);
        assert!(printed.contains("RUN echo one > /one\n ---> Using cache\n"), "{printed}");
        at.ok("rmi dead");
        await_nothing(&at);
    });
}

#[test]
fn privileged_a_daemon_that_is_stopped_in_a_build_leaves_no_container_to_the_next() {
    ours(|daemon| {
        let directory = context("FROM busybox\nRUN echo begun; sleep 1000\n");
        for cli in daemon.clis() {
            let (client, id) = begin(&At { daemon, cli }, "", &directory, "begun\n");
            daemon.stop().unwrap();
            drop(client);
            daemon.restart().unwrap();
            let at = At { daemon, cli };
            await_removal(&at, &id);
            await_nothing(&at);
        }
    });
}

#[test]
fn privileged_a_prune_leaves_the_steps_of_a_build_that_goes_on() {
    ours(|daemon| {
        let text = "FROM busybox AS one\nRUN echo one > /one\n\
                    FROM busybox\nRUN echo begun; until [ -e /go ]; do sleep 0.1; done\nCOPY --from=one /one /two\n";
        let directory = context(text);
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let (client, id) = begin(&at, "-q=false --no-cache -t pruned", &directory, "begun\n");
            for flags in ["-f", "-af"] {
                let pruned = at.ok(&format!("image prune {flags}"));
                assert!(pruned.contains("reclaimed space: 0B"), "{pruned}");
            }
            at.ok("builder prune -af");
            at.ok(&format!("exec {id} touch /go"));
            let built = client.wait().unwrap();
            assert_eq!(built.code, 0, "{built:?}");
            assert_eq!(at.run("pruned cat /two"), "one");
            // Nothing is needed any more.
            at.ok("rmi pruned");
            assert_eq!(at.ok("image prune -f").contains("Deleted"), cli == Cli::Docker);
            assert!(at.ok("images -aq --filter dangling=true").is_empty());
            // Of all but dockerd's own builder it is the build cache's.
            at.ok("builder prune -af");
            let left = fs::read_dir(daemon.scratch().data_root().join("build-steps"));
            assert_eq!(left.map_or(0, Iterator::count), 0);
        }
    });
}

/// What a context says that it has may take as long as its author likes.
#[test]
fn privileged_hashing_a_context_ends_with_its_client() {
    ours(|daemon| {
        let directory = context("FROM busybox\nCOPY long /\n");
        fs::File::create(directory.path().join("long")).unwrap().set_len(8 << 40).unwrap();
        let archive = tempfile::NamedTempFile::new().unwrap();
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(directory.path()).arg("-Scf").arg(archive.path()).args(["Dockerfile", "long"]);
        assert!(tar.status().unwrap().success());
        let bytes = fs::read(archive.path()).unwrap();
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let mut client = at.spawn("build -");
            client.send(&bytes).unwrap();
            client.close_input();
            client.read_until("COPY long /\n").unwrap();
            client.signal(Signal::KILL).unwrap();
            client.wait().unwrap();
            await_nothing(&at);
        }
    });
}

/// Killed somewhere among many files, with each command line at another point.
#[test]
fn privileged_copies_of_a_dead_daemon_leave_nothing_and_go_on() {
    ours(|daemon| {
        let directory = context("FROM busybox\nRUN echo one > /one\nCOPY . /all/\nRUN ls /all | wc -l\n");
        for number in 0..2000 {
            fs::write(directory.path().join(format!("f{number}")), vec![b'x'; 4096]).unwrap();
        }
        let build = format!("build -t copied {}", directory.path().display());
        for cli in daemon.clis() {
            let mut client = At { daemon, cli }.spawn(&build);
            client.read_until("COPY . /all/\n").unwrap();
            daemon.kill9().unwrap();
            drop(client);
            daemon.restart().unwrap();
            let at = At { daemon, cli };
            await_nothing(&at);
            let printed = at.ok(&build);
            assert!(printed.contains("RUN echo one > /one\n ---> Using cache\n"), "{printed}");
            assert_eq!(at.run("copied sh -c 'ls /all | wc -l'"), "2001");
            at.ok("rmi copied");
            await_nothing(&at);
        }
    });
}
