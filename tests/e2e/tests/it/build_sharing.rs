//! A step that several builds want at the same time, with each way of building: it is done once.

use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;
use testkit::{Cli, Output, Piped};

use crate::build::context;
use crate::build_ends::await_nothing;
use crate::build_mounts::{Way, each_way};
use crate::build_stages::{begin, run, wait_for};
use crate::buildx::plugged;

/// A command that says that it begins, waits until [`release`] is called, and leaves a number that no other run of it
/// has. What it does then is `last`. Who prints commands does not print it as it says it.
fn held(cache: &str, last: &str) -> String {
    let wait = wait_for("/c/go");
    run(cache, &format!("cat /proc/sys/kernel/random/uuid > /began; echo be\"\"gan at $(cat /began); {wait}; {last}"))
}

/// Lets commands with that cache go on.
fn release(way: &Way<'_>, cache: &str) {
    let text = format!("FROM busybox\n{}", run(cache, &format!("echo {cache}; touch /c/go")));
    way.build("", &context(&[("Dockerfile", &text)]));
}

/// Begins with a build that does the step, and with another one that wants it; answers when both have heard what it prints.
fn two(way: &Way<'_>, flags: [&str; 2], directory: &TempDir) -> [Piped; 2] {
    flags.map(|flags| {
        let mut client = begin(way, flags, directory);
        client.read_until("began at ").unwrap();
        client
    })
}

/// Which run of the command was heard of; [`two`] has read as far as that.
fn began(output: &Output) -> &str {
    let run = output.stdout.lines().next().unwrap_or_default();
    assert_eq!(run.len(), 36, "{output:?}");
    run
}

fn id(way: &Way<'_>, image: &str) -> String {
    way.at().ok(&format!("image inspect -f {{{{.Id}}}} {image}"))
}

#[test]
fn privileged_what_two_builds_want_at_once_is_done_once() {
    each_way(|way| {
        let (one, two_) = (way.name("once-one"), way.name("once-two"));
        // Steps around it come to the same images, too.
        let text = format!(
            "FROM busybox\nENV A={one}\nWORKDIR /w\nCOPY file /file\n{}RUN cp /began /copied\n",
            held(&one, "true")
        );
        let directory = context(&[("Dockerfile", &text), ("file", "f")]);
        let clients = two(way, [&format!("-t {one}"), &format!("-t {two_}")], &directory);
        release(way, &one);
        let outputs = clients.map(|client| client.wait().unwrap());
        for output in &outputs {
            assert_eq!(output.code, 0, "{output:?}");
        }
        assert_eq!(began(&outputs[0]), began(&outputs[1]));
        assert_eq!(id(way, &one), id(way, &two_));
        way.at().ok(&format!("rmi {one} {two_}"));
    });
}

#[test]
fn privileged_a_step_goes_on_for_others_when_its_client_goes() {
    each_way(|way| {
        let image = way.name("heir");
        let directory = context(&[("Dockerfile", &format!("FROM busybox\n{}", held(&image, "true")))]);
        let [first, mut second] = two(way, ["", &format!("-t {image}")], &directory);
        first.signal(Signal::INT).unwrap();
        first.wait().unwrap();
        // It is done anew.
        second.read_until("began at ").unwrap();
        release(way, &image);
        let output = second.wait().unwrap();
        assert_eq!(output.code, 0, "{output:?}");
        began(&output);
        way.at().ok(&format!("rmi {image}"));
        await_nothing(way.at());
    });
}

#[test]
fn privileged_a_step_that_fails_fails_all_who_wait_for_it() {
    each_way(|way| {
        let cache = way.name("lost");
        let last = "echo all is lost; exit 7";
        let directory = context(&[("Dockerfile", &format!("FROM busybox\n{}", held(&cache, last)))]);
        let clients = two(way, ["", ""], &directory);
        release(way, &cache);
        let outputs = clients.map(|client| client.wait().unwrap());
        let told = |output: &Output| format!("{}{}", output.stdout, output.stderr);
        for output in &outputs {
            let told = told(output);
            assert!(told.contains("all is lost"), "{told}");
            match way.cli {
                Some(_) => assert!(output.code == 7 && told.contains("exit 7' returned a non-zero code: 7"), "{told}"),
                None => assert!(output.code == 1 && told.contains("exit code: 7"), "{told}"),
            }
        }
        assert_eq!(began(&outputs[0]), began(&outputs[1]));
        await_nothing(way.at());
    });
}

/// What one build does whatever is known is nothing for others, but once is enough for itself.
#[test]
fn privileged_what_is_done_again_is_done_by_each_build_once() {
    each_way(|way| {
        let image = way.name("again");
        let step = "RUN cat /proc/sys/kernel/random/uuid > /a; sleep 0.5\n";
        let text = format!(
            "FROM busybox AS one\n{step}FROM busybox AS two\n{step}FROM busybox\nCOPY --from=one /a /one\n\
             COPY --from=two /a /two\n"
        );
        let directory = context(&[("Dockerfile", &text)]);
        let names = ["x", "y"].map(|name| format!("{image}-{name}"));
        let clients = names.clone().map(|name| begin(way, &format!("--no-cache -t {name}"), &directory));
        let outputs = clients.map(|client| client.wait().unwrap());
        outputs.iter().for_each(|output| assert_eq!(output.code, 0, "{output:?}"));
        let times = names.clone().map(|name| way.at().run(&format!("{name} cat /one /two")));
        for times in &times {
            let (one, two) = times.split_once('\n').unwrap();
            assert_eq!(one, two);
        }
        assert_ne!(times[0], times[1]);
        way.at().ok(&format!("rmi {}", names.join(" ")));
    });
}

/// Two builds that want many steps of each other, in the other order, and have few turns for them.
#[test]
fn privileged_builds_that_wait_for_each_other_get_on() {
    each_way(|way| {
        let name = way.name("crossing");
        let stage = |number: usize| {
            format!("FROM busybox AS s{number}\nRUN echo {name}; cat /proc/sys/kernel/random/uuid > /s{number}\n")
        };
        let text = |numbers: &mut dyn Iterator<Item = usize>| {
            let numbers: Vec<usize> = numbers.collect();
            let stages: String = numbers.iter().map(|number| stage(*number)).collect();
            let copies: String =
                (0..8).map(|number| format!("COPY --from=s{number} /s{number} /all/s{number}\n")).collect();
            format!("{stages}FROM busybox\n{copies}")
        };
        let contexts = [text(&mut (0..8)), text(&mut (0..8).rev())].map(|text| context(&[("Dockerfile", &text)]));
        let names = ["up", "down"].map(|order| format!("{name}-{order}"));
        let clients = [0, 1].map(|at| begin(way, &format!("-t {}", names[at]), &contexts[at]));
        let outputs = clients.map(|client| client.wait().unwrap());
        outputs.iter().for_each(|output| assert_eq!(output.code, 0, "{output:?}"));
        let all = names.clone().map(|name| way.at().run(&format!("{name} sh -c 'cat /all/*'")));
        assert_eq!(all[0], all[1]);
        way.at().ok(&format!("rmi {}", names.join(" ")));
    });
}

/// Whose secret was the wrong one fails alone, and nobody else hears what was done with it.
#[test]
fn privileged_what_is_done_with_a_secret_is_heard_by_its_client_alone() {
    each_way(|way| {
        if way.cli == Some(Cli::Docker) {
            // dockerd's own builder has no secrets.
            return;
        }
        let image = way.name("private");
        let mount = format!("--mount=type=cache,id={image},target=/c");
        let secret = "--mount=type=secret,id=word";
        let wait = wait_for("/c/go");
        let command =
            format!("touch /c/$(cat /run/secrets/word); cat /run/secrets/word; {wait}; grep -q good /run/secrets/word");
        let text = format!("FROM busybox\nRUN {mount} {secret} {command}\n");
        let directory = context(&[("Dockerfile", &text), ("bad", "bad1"), ("good", "good1")]);
        let flags = |word: &str| format!("--secret id=word,src={}", directory.path().join(word).display());
        let mut first = begin(way, &flags("bad"), &directory);
        first.read_until("bad1").unwrap();
        let second = begin(way, &format!("-t {image} {}", flags("good")), &directory);
        release(way, &image);
        assert_ne!(first.wait().unwrap().code, 0);
        let output = second.wait().unwrap();
        assert_eq!(output.code, 0, "{output:?}");
        assert!(output.stdout.contains("good1") && !output.stdout.contains("bad1"), "{output:?}");
        way.at().ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_targets_of_one_bake_share_their_steps() {
    plugged(|plugged| {
        let names = ["left", "right"].map(|name| plugged.at.image(&format!("shared-{name}")));
        let target = |name: &str, image: &str| {
            format!("target \"{name}\" {{\n  target = \"{name}\"\n  tags = [\"{image}\"]\n}}\n")
        };
        let hcl = format!(
            "group \"default\" {{ targets = [\"left\", \"right\"] }}\n{}{}",
            target("left", &names[0]),
            target("right", &names[1])
        );
        let text = format!(
            "FROM busybox AS base\nRUN echo {} > /name; cat /proc/sys/kernel/random/uuid > /time; sleep 0.5\nFROM base AS left\nRUN cp /time /out\n\
             FROM base AS right\nRUN cp /name /out\n",
            names[0]
        );
        let directory = context(&[("docker-bake.hcl", &hcl), ("Dockerfile", &text)]);
        let mut command = plugged.command("buildx bake --progress plain");
        command.current_dir(directory.path()).stdin(Stdio::null());
        let output = testkit::process::run(&mut command, b"").unwrap();
        assert_eq!(output.code, 0, "{output:?}");
        let times = names.clone().map(|name| plugged.at.run(&format!("{name} cat /time")));
        assert_eq!(times[0], times[1]);
        plugged.at.ok(&format!("rmi {}", names.join(" ")));
    });
}
