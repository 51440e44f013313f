//! Stages that go on side by side, with each way of building.

use std::fs;
use std::process::Stdio;

use rustix::process::Signal;
use testkit::{Cli, Piped, Pty};

use crate::build::context;
use crate::build_ends::await_nothing;
use crate::build_mounts::{Way, each_way};

/// A command that waits for a file for a minute. Whoever waits for something that comes afterwards waits in vain.
pub(crate) fn wait_for(file: &str) -> String {
    format!("for i in $(seq 600); do [ -e {file} ] && break; sleep 0.1; done; [ -e {file} ]")
}

/// A `RUN` that has a cache of this name at `/c`, which all share.
pub(crate) fn run(cache: &str, command: &str) -> String {
    format!("RUN --mount=type=cache,id={cache},target=/c {command}\n")
}

/// Two stages of which each needs the other one to go on, and one that has files of both.
fn meeting(cache: &str) -> String {
    let stage = |name: &str, other: &str| {
        let wait = wait_for(&format!("/c/{other}"));
        let command = format!("echo {name} begins; touch /c/{name}; {wait} && echo {name} ends > /{name}");
        format!("FROM busybox AS {name}\n{}", run(cache, &command))
    };
    let last = "FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    stage("one", "two") + &stage("two", "one") + last
}

#[test]
fn privileged_stages_that_do_not_need_each_other_go_on_side_by_side() {
    each_way(|way| {
        let image = way.name("meeting");
        let directory = context(&[("Dockerfile", &meeting(&image))]);
        let printed = way.build(&format!("--no-cache -t {image}"), &directory);
        assert_eq!(way.at().run(&format!("{image} cat /one /two")), "one ends\ntwo ends");
        if way.cli.is_some() {
            // Who reads lines reads one stage after the other.
            let places = ["Step 1/7", "one begins", "Step 3/7", "two begins", "Step 5/7", "Step 7/7"];
            let found: Vec<_> =
                places.iter().map(|text| printed.rfind(text).unwrap_or_else(|| panic!("{text}: {printed}"))).collect();
            assert!(found.is_sorted(), "{printed}");
        }
        way.at().ok(&format!("rmi {image}"));
    });
}

/// What comes to be printed does not depend on who was faster.
#[test]
fn privileged_lines_are_the_same_every_time() {
    each_way(|way| {
        if way.cli.is_none() {
            return;
        }
        let stage = |name: &str, pause: &str| {
            format!(
                "FROM busybox AS {name}\nRUN sleep {pause}; for i in 1 2 3; do echo {name} $i; done\nENV A={name}\n"
            )
        };
        let last =
            "FROM busybox\nRUN --mount=from=c,target=/c --mount=from=a,target=/a --mount=from=b,target=/b true\n";
        let bare = |printed: String| {
            let told =
                printed.lines().filter(|line| !line.contains(" ---> ") && !line.starts_with("Successfully built"));
            told.map(str::to_owned).collect::<Vec<_>>().join("\n")
        };
        let printed = |pauses: [&str; 3]| {
            let text: String = ["a", "b", "c"].iter().zip(pauses).map(|(name, pause)| stage(name, pause)).collect();
            let directory = context(&[("Dockerfile", &(text + last))]);
            bare(way.build("--no-cache", &directory)).replace("sleep 0.5;", "sleep 0.0;")
        };
        assert_eq!(printed(["0.0", "0.0", "0.5"]), printed(["0.5", "0.0", "0.0"]));
    });
}

/// One waits for a cache that another one has, which prints more than a reader takes that is not there yet.
#[test]
fn privileged_a_locked_cache_is_waited_for_whoever_reads() {
    each_way(|way| {
        let cache = way.name("locked");
        let locked = format!("RUN --mount=type=cache,id={cache}-l,target=/l,sharing=locked");
        let shared = format!("--mount=type=cache,id={cache},target=/c");
        let text = format!(
            "FROM busybox AS one\n{}{locked} [ -e /l/done ] && touch /one\n\
             FROM busybox AS two\n{locked} {shared} touch /c/has && seq 400000 && touch /l/done /two\n\
             FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
            run(&cache, &wait_for("/c/has"))
        );
        let directory = context(&[("Dockerfile", &text)]);
        let printed = way.build("--no-cache", &directory);
        if way.cli.is_some() {
            let (_, behind) = printed.split_once("\n1\n2\n3\n").unwrap();
            let numbers = behind.lines().map_while(|line| line.parse::<u32>().ok());
            assert!(numbers.eq(4..=400_000), "not all of what was printed came");
        }
    });
}

#[test]
fn privileged_a_stage_that_fails_ends_the_others() {
    each_way(|way| {
        let cache = way.name("failing");
        let first = run(&cache, "touch /c/begun; echo begun; sleep 1000");
        let second = run(&cache, &format!("{}; echo all is lost; exit 7", wait_for("/c/begun")));
        let text = format!(
            "FROM busybox AS one\n{first}FROM busybox AS two\n{second}FROM busybox\nCOPY --from=one /a /\nCOPY --from=two /b /\n"
        );
        let directory = context(&[("Dockerfile", &text)]);
        let output = way.output("--no-cache", &directory);
        let told = format!("{}{}", output.stdout, output.stderr);
        assert!(told.contains("all is lost"), "{told}");
        match way.cli {
            Some(_) => assert!(output.code == 7 && told.contains("exit 7' returned a non-zero code: 7"), "{output:?}"),
            None => {
                assert!(output.code == 1 && told.contains("exit code: 7"), "{output:?}");
                assert!(told.contains("CANCELED"), "{told}");
                assert!(told.contains("> [two 2/2] RUN"), "{told}");
            }
        }
        await_nothing(way.at());
    });
}

#[test]
fn privileged_with_the_client_all_stages_end() {
    each_way(|way| {
        let cache = way.name("gone");
        let stage = |name: &str, other: &str| {
            let command = format!("touch /c/{name}; {}; echo both begun; sleep 1000", wait_for(&format!("/c/{other}")));
            format!("FROM busybox AS {name}\n{}", run(&cache, &command))
        };
        let last = "FROM busybox\nCOPY --from=one /a /\nCOPY --from=two /b /\n";
        let directory = context(&[("Dockerfile", &(stage("one", "two") + &stage("two", "one") + last))]);
        let mut client = begin(way, "--no-cache", &directory);
        client.read_until("both begun\n").unwrap();
        client.signal(Signal::KILL).unwrap();
        client.wait().unwrap();
        await_nothing(way.at());
    });
}

/// Begins a build whose output is read.
pub(crate) fn begin(way: &Way<'_>, flags: &str, directory: &tempfile::TempDir) -> Piped {
    let mut command = way.command(flags, directory);
    if way.cli.is_none() {
        // buildx tells all on standard error.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" 2>&1"]).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = shell;
    }
    command.stdin(Stdio::null());
    Piped::spawn(&mut command).unwrap()
}

/// Stages that begin with the same image, and a stage with a name twice, know what they mean.
#[test]
fn privileged_stages_wait_for_those_that_they_need() {
    each_way(|way| {
        let image = way.name("chain");
        let text = "FROM busybox AS base\nRUN sleep 0.2; echo base > /a\nFROM base AS left\nRUN cat /a > /left\n\
                    FROM base AS right\nCOPY --from=left /left /right\nRUN --mount=from=1,target=/l cat /l/left >> /right\n\
                    FROM scratch AS none\nFROM right\nCOPY --from=2 /right /got\nRUN --mount=from=left,target=/l cat /l/a >> /got\n";
        let directory = context(&[("Dockerfile", text)]);
        way.build(&format!("--no-cache -t {image}"), &directory);
        assert_eq!(way.at().run(&format!("{image} cat /got")), "base\nbase\nbase");
        let again = way.build(&format!("-t {image}"), &directory);
        assert!(!again.contains("Running in") && !again.contains("DONE 0.2s"), "{again}");
        way.at().ok(&format!("rmi {image}"));
    });
}

/// What only one of the clients tells: BuildKit's draws parts, which have names.
#[test]
fn privileged_the_first_of_the_stages_names_their_image() {
    each_way(|way| {
        if way.cli.is_some() {
            return;
        }
        let text = "FROM busybox AS one\nRUN true\nFROM busybox AS two\nRUN true\nFROM busybox\nCOPY --from=one /etc /1\n\
                    COPY --from=two /etc /2\n";
        let directory = context(&[("Dockerfile", text)]);
        for _ in 0..5 {
            let printed = way.build("", &directory);
            assert!(printed.contains("[one 1/2] FROM docker.io/library/busybox:latest"), "{printed}");
            assert!(!printed.contains("[two 1/2] FROM") && !printed.contains("[stage-2 1/3] FROM"), "{printed}");
        }
    });
}

#[test]
fn privileged_stages_are_done_again_by_name() {
    each_way(|way| {
        if way.cli == Some(Cli::Docker) {
            // dockerd's own builder knows no names.
            return;
        }
        let image = way.name("again");
        let text = "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /one\nFROM busybox\n\
                    RUN cat /proc/sys/kernel/random/uuid > /two\nFROM busybox\nCOPY --from=one /one /\nCOPY --from=1 /two /\n";
        let directory = context(&[("Dockerfile", text)]);
        let built = |flags: &str| {
            way.build(&format!("-t {image} {flags}"), &directory);
            [1, 2].map(|file| way.at().run(&format!("{image} cat {}", ["/one", "/two"][file - 1])))
        };
        let first = built("");
        assert_eq!(built(""), first);
        assert_eq!(built("--no-cache-filter other"), first);
        let second = built("--no-cache-filter ONE");
        assert!(second[0] != first[0] && second[1] == first[1], "{first:?} {second:?}");
        let third = built("--no-cache-filter stage-1,other");
        assert!(third[0] == second[0] && third[1] != second[1], "{second:?} {third:?}");
        way.at().ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_what_cannot_be_is_refused_before_all_steps() {
    each_way(|way| {
        for (lines, sentence) in [
            ("RUN --mount=type=bind,size=5,target=/x true", "unexpected key 'size' for mount type 'bind'"),
            ("RUN --mount=target=/ true", "invalid mount target \"/\""),
            ("ADD --checksum=md5:1 http://localhost/x /", "invalid checksum digest format"),
        ] {
            let text = format!("FROM busybox\nRUN echo much was done\n{lines}\n");
            let output = way.output("--no-cache", &context(&[("Dockerfile", &text)]));
            let told = output.stdout + &output.stderr;
            assert!(output.code != 0 && told.contains(sentence), "{told}");
            assert!(!told.contains("\nmuch was done") && !told.contains(" much was done\n#"), "{told}");
            assert!(!told.contains("Running in"), "{told}");
        }
    });
}

#[test]
fn privileged_stages_are_named_in_lower_case() {
    each_way(|way| {
        if way.cli.is_some() {
            return;
        }
        let directory = context(&[("Dockerfile", "FROM busybox AS Base\nFROM Base\n")]);
        let sentence = "failed to parse stage name \"Base\": invalid reference format: repository name (library/Base) must be lowercase";
        way.fails("", &directory, sentence);
        way.fails("--check", &directory, sentence);
        // Who copies of it may call it as he likes.
        let text = "FROM busybox AS Base\nFROM busybox\nCOPY --from=BASE /etc /e\n";
        way.build("", &context(&[("Dockerfile", text)]));
    });
}

#[test]
fn privileged_variables_of_secrets_are_not_shown() {
    each_way(|way| {
        if way.cli.is_some() {
            return;
        }
        let text = "FROM busybox\nENV TOKEN=shown OTHER=too\nRUN --mount=type=secret,id=t,env=TOKEN echo $TOKEN $OTHER > /dev/null\n";
        let directory = context(&[("Dockerfile", text), ("t", "0123456789")]);
        let printed = way.build(&format!("--secret id=t,src={}/t", directory.path().display()), &directory);
        assert!(printed.contains("echo **** too > /dev/null"), "{printed}");
    });
}

/// Of each step is told why it was done again.
#[test]
fn privileged_why_a_step_is_done_again_is_told() {
    each_way(|way| {
        if way.cli != Some(Cli::Longshore) {
            return;
        }
        let (image, base) = (way.name("why"), way.name("why-base"));
        let base_of = |word: &str| {
            let directory = context(&[("Dockerfile", &format!("FROM busybox\nRUN echo {word} > /base\n"))]);
            way.build(&format!("-t {base}"), &directory);
        };
        base_of("first");
        let text = |word: &str| format!("FROM {base}\nARG A=1\nRUN echo $A > /a\nCOPY d /d\nRUN echo {word} > /one\n");
        let directory = context(&[("Dockerfile", &text("one")), ("d/x", "1"), ("d/y", "1")]);
        let build = |flags: &str, wanted: &[(&str, &str)]| {
            let printed = way.build(&format!("--explain -t {image} {flags}"), &directory);
            assert_eq!(printed.matches(" ---> Not known: ").count(), wanted.len(), "{printed}");
            for (step, why) in wanted {
                let line = format!("{step}\n ---> Not known: {why}\n");
                assert!(printed.contains(&line), "{line:?} in {printed}");
            }
        };
        let before = "a step before it was done";
        let all = |why| {
            [("ARG A=1", why), ("RUN echo $A > /a", before), ("COPY d /d", before), ("RUN echo one > /one", before)]
        };
        build("", &all("nothing like it was built here"));
        build("", &[]);
        let behind = [("COPY d /d", before), ("RUN echo one > /one", before)];
        let argument = ("RUN echo $A > /a", "arguments changed: A: \"1\" -> \"2\"");
        build("--build-arg A=2", &[&[argument][..], &behind].concat());
        fs::write(directory.path().join("d/x"), "2").unwrap();
        fs::rename(directory.path().join("d/y"), directory.path().join("d/z")).unwrap();
        build("", &[("COPY d /d", "files changed: d/x; new: d/z; gone: d/y"), behind[1]]);
        fs::write(directory.path().join("Dockerfile"), text("two")).unwrap();
        let words = "its words changed from \"RUN echo one > /one\" to \"RUN echo two > /one\"";
        build("", &[("RUN echo two > /one", words)]);
        fs::write(directory.path().join("Dockerfile"), text("one")).unwrap();
        build("", &[]);
        let again = "everything is done again (--no-cache)";
        build("--no-cache", &all(again).map(|(step, _)| (step, again)));
        way.at().ok("builder prune -af");
        build("", &all("it was forgotten (builder prune)"));
        let id = |name: &str| way.at().inspect(name, "{{.Id}}")[7..19].to_owned();
        let first = id(&base);
        base_of("second");
        build("", &all(&format!("the image below changed from {first} to {}", id(&base))));
        // Nobody asked: nothing is told.
        assert!(!way.build("--no-cache", &directory).contains("Not known"));
        way.at().ok(&format!("rmi {image} {base}"));
    });
}

#[test]
fn privileged_a_shell_opens_where_a_command_failed() {
    each_way(|way| {
        if way.cli != Some(Cli::Longshore) {
            return;
        }
        let text = "FROM busybox\nENV WORD=env\nWORKDIR /w\nRUN echo left-here > file; exit 5\n";
        let directory = context(&[("Dockerfile", text)]);
        let sentence = "--on-error=shell needs a terminal on standard input and output";
        way.fails("--on-error=shell", &directory, sentence);
        way.fails("--on-error=debug", &directory, "invalid value \"debug\" for --on-error");
        way.build("", &context(&[("Dockerfile", "FROM busybox\nENV WORD=env\nWORKDIR /w\n")]));
        let images = way.at().ok("images -aq --no-trunc");
        for flags in ["--on-error=shell", "--on-error=shell --force-rm"] {
            let mut pty = Pty::spawn(&way.command(flags, &directory), 40, 200).unwrap();
            pty.read_until("returned a non-zero code: 5").unwrap();
            pty.read_until("/w # ").unwrap();
            pty.send(b"echo $WORD-$(cat file); exit 3\n").unwrap();
            pty.read_until("env-left-here").unwrap();
            assert_eq!(pty.wait().unwrap().1, 5);
            await_nothing(way.at());
            assert_eq!(way.at().ok("images -aq --no-trunc"), images);
        }
    });
}

/// As dockerd 28.5.2 does it, with BuildKit and with its own builder.
#[test]
fn privileged_arguments_go_to_stages_that_begin_there() {
    each_way(|way| {
        let image = way.name("inherited");
        let text = "FROM busybox AS base\nARG NAME=joe\nFROM busybox AS other\nRUN echo \"<$NAME>\" > /other\n\
                    FROM base\nRUN echo \"<$NAME>\" > /out\nCOPY --from=other /other /\n";
        let directory = context(&[("Dockerfile", text)]);
        let built = |flags: &str| {
            way.build(&format!("-t {image} {flags}"), &directory);
            way.at().run(&format!("{image} cat /out /other"))
        };
        let wanted = if way.cli.is_some() { ["<>\n<>", "<>\n<>"] } else { ["<joe>\n<>", "<ann>\n<>"] };
        assert_eq!([built(""), built("--build-arg NAME=ann")], wanted);
        way.at().ok(&format!("rmi {image}"));
    });
}
