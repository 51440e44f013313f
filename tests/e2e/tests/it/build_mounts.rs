//! `RUN --mount`, with both builders of the real command line and with ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, Output, Piped};

use crate::build::{context, path};
use crate::buildx::{Plugged, plugged};
use crate::support::{At, ours, split};

/// One way of building.
pub(crate) struct Way<'a> {
    plugged: &'a Plugged<'a>,
    /// The command line, of `buildx build` none.
    pub(crate) cli: Option<Cli>,
}

/// Runs `test` with each way of building, at the same daemon.
pub(crate) fn each_way(test: impl Fn(&Way<'_>)) {
    plugged(|plugged| {
        // dockerd's own builder has no mounts.
        let clis = plugged.at.daemon.clis().into_iter().filter(|_| !plugged.at.daemon.is_foreign());
        for cli in clis.map(Some).chain([None]) {
            println!("with {cli:?}");
            test(&Way { plugged, cli });
        }
    });
}

impl Way<'_> {
    /// For what is not about building.
    pub(crate) fn at(&self) -> &At<'_> {
        &self.plugged.at
    }

    /// With the plugins.
    pub(crate) fn plugged(&self) -> &Plugged<'_> {
        self.plugged
    }

    /// A name that no other way has.
    pub(crate) fn name(&self, name: &str) -> String {
        let way = self.cli.map_or("buildx".to_owned(), |cli| format!("{cli:?}").to_lowercase());
        self.at().image(&format!("{name}-{way}"))
    }

    pub(crate) fn command(&self, flags: &str, directory: &TempDir) -> Command {
        match self.cli {
            Some(cli) => {
                let mut command = self.at().daemon.command(cli).unwrap();
                command.args(split(&format!("build {flags} {}", path(directory))));
                command
            }
            None => self.plugged.command(&format!("buildx build --progress plain {flags} {}", path(directory))),
        }
    }

    pub(crate) fn output(&self, flags: &str, directory: &TempDir) -> Output {
        println!("build {flags}");
        testkit::process::run(&mut self.command(flags, directory), b"").unwrap()
    }

    /// Builds; answers all that was printed.
    pub(crate) fn build(&self, flags: &str, directory: &TempDir) -> String {
        let output = self.output(flags, directory);
        assert_eq!(output.code, 0, "{output:?}");
        output.stdout + &output.stderr
    }

    /// Fails to build, with this sentence.
    pub(crate) fn fails(&self, flags: &str, directory: &TempDir, sentence: &str) {
        let output = self.output(flags, directory);
        assert_ne!(output.code, 0, "{output:?}");
        let told = output.stdout + &output.stderr;
        assert!(told.contains(sentence), "{sentence:?} in {told}");
    }

    /// Whether a printed step was known.
    fn is_known(&self, printed: &str) -> bool {
        printed.contains(" ---> Using cache\n") || printed.contains(" CACHED")
    }

    /// Forgets the caches of commands.
    fn prune(&self) -> String {
        let line = "buildx prune --force --filter type=exec.cachemount";
        let output = testkit::process::run(&mut self.plugged.command(line), b"").unwrap();
        output.success().unwrap().to_owned()
    }

    /// Which of these paths are in an image.
    fn there(&self, image: &str, paths: &str) -> String {
        self.at().run(&format!("{image} sh -c 'ls -d {paths} 2>/dev/null || true'"))
    }

    /// What there is below these directories of an image.
    fn files(&self, image: &str, directories: &str) -> String {
        self.at().run(&format!("{image} find {directories}"))
    }
}

/// A Dockerfile of busybox with these lines.
fn of(lines: &str) -> String {
    format!("FROM busybox\n{lines}")
}

#[test]
fn privileged_commands_see_the_context_and_leave_it_as_it_is() {
    each_way(|way| {
        let image = way.name("bound");
        let text = of("WORKDIR /w\n\
             RUN --mount=target=ctx --mount=source=sub/deep,target=/made/here/deep --mount=source=file,target=/one \
             cat ctx/file /made/here/deep/b /one > /got && ! echo x 2>/dev/null > ctx/new && id -u > /who\n\
             RUN --mount=source=sub,target=/rw,rw --mount=source=file,target=/f,readwrite=true \
             echo x > /rw/new && echo y > /rw/a && rm -r /rw/deep && echo z > /f && cat /rw/a /f >> /got\n\
             RUN --mount=source=sub,target=/again,rw cat /again/a >> /got; ls /again >> /got\n\
             USER 5\nRUN --mount=target=/mine cat /mine/sub/a\n");
        let files =
            [("Dockerfile", text.as_str()), ("file", "f\n"), ("sub/a", "a\n"), ("sub/deep/b", "b\n"), ("other", "o\n")];
        let directory = context(&files);
        way.build(&format!("--no-cache -t {image}"), &directory);
        let got = way.at().run(&format!("{image} cat /got"));
        assert_eq!(got, "f\nb\nf\ny\nz\na\na\ndeep");
        // What was made to mount them is not in the image, nor in any of its layers.
        let left = way.there(&image, "/w /w/ctx /made /one /rw /f /again /mine");
        assert_eq!(left, "/w");
        way.at().ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_steps_depend_on_what_their_mounts_show() {
    each_way(|way| {
        let text =
            of(&format!("ARG PART=sub\nRUN --mount=source=$PART,target=/x cat /x/a; echo {}\n", way.name("key")));
        let directory = context(&[("Dockerfile", &text), ("sub/a", "1"), ("file", "1"), ("next/a", "1")]);
        assert!(!way.is_known(way.build("", &directory).rsplit_once("RUN").unwrap().1));
        fs::write(directory.path().join("file"), "2").unwrap();
        let last = |printed: String| printed.rsplit_once("RUN").unwrap().1.to_owned();
        assert!(way.is_known(&last(way.build("", &directory))));
        fs::write(directory.path().join("sub/a"), "2").unwrap();
        assert!(!way.is_known(&last(way.build("", &directory))));
        way.fails("--build-arg PART=none", &directory, "not found");
    });
}

#[test]
fn privileged_commands_see_stages_and_images() {
    each_way(|way| {
        let image = way.name("staged");
        let own = way.name("own");
        let text = format!(
            "FROM busybox AS made\nRUN mkdir -p /out/sub && echo {own} > /out/sub/file && ln -s /out/sub /link\n\
             FROM busybox AS unused\nRUN exit 3\n\
             FROM busybox\n\
             RUN --mount=from=made,target=/all --mount=from=made,source=/out/sub,target=/part \
             --mount=from=made,source=/link,target=/linked --mount=from=made,source=/out/sub/file,target=/file \
             --mount=from=busybox,source=/bin,target=/mnt/bin --mount=from=made,source=/out,target=/rw,rw \
             cat /all/out/sub/file /part/file /linked/file /file > /got && ls /mnt/bin/busybox >> /got && \
             ! touch /all/x && echo changed > /rw/sub/file && cat /rw/sub/file >> /got\n\
             RUN --mount=from=made,source=/out,target=/rw cat /rw/sub/file >> /got\n"
        );
        let directory = context(&[("Dockerfile", &text)]);
        way.build(&format!("-t {image}"), &directory);
        let got = way.at().run(&format!("{image} cat /got"));
        assert_eq!(got, format!("{own}\n{own}\n{own}\n{own}\n/mnt/bin/busybox\nchanged\n{own}"));
        let left = way.there(&image, "/all /part /linked /file /mnt /rw");
        assert_eq!(left, "");
        way.at().ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_layers_have_nothing_of_what_was_mounted_in_them() {
    each_way(|way| {
        let image = way.name("clean");
        let text = of("RUN mkdir -p /opt/there && echo x > /opt/file\n\
             RUN --mount=type=tmpfs,target=/opt/t --mount=type=tmpfs,target=/run/a/b --mount=type=cache,target=/c/d \
             echo x > /opt/t/f; echo y > /run/a/b/f; echo z > /c/d/f\n\
             RUN --mount=type=tmpfs,target=/new/t echo kept > /new/kept\n");
        let directory = context(&[("Dockerfile", &text)]);
        way.build(&format!("--no-cache -t {image}"), &directory);
        assert_eq!(way.files(&image, "/opt /new").split_whitespace().count(), 5);
        let sizes = way.at().ok(&format!("history --format '{{{{.Size}}}} {{{{.CreatedBy}}}}' {image}"));
        assert!(sizes.lines().nth(1).unwrap().starts_with("0B "), "{sizes}");
        // One that changed nothing has no layer.
        if way.at().daemon.is_foreign() {
            return;
        }
        let layers = way.at().inspect(&image, "{{len .RootFS.Layers}}");
        let below = way.at().inspect("busybox", "{{len .RootFS.Layers}}");
        assert_eq!(layers.parse::<usize>().unwrap(), below.parse::<usize>().unwrap() + 2);
        way.at().ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_memory_is_bounded() {
    each_way(|way| {
        let text = of("RUN --mount=type=tmpfs,target=/t,size=1m ! head -c 2000000 /dev/zero > /t/f && \
             grep -q ' /t tmpfs ' /proc/mounts\n");
        way.build("--no-cache", &context(&[("Dockerfile", &text)]));
        for (flags, sentence) in [
            ("type=tmpfs,target=/t,size=x", "invalid value for size: x"),
            ("type=tmpf,target=/t", "unsupported mount type \"tmpf\" (did you mean tmpfs?)"),
            ("type=tmpfs,target=/t,uid=1", "uid not allowed for \"tmpfs\" type mounts"),
            ("target=/", "invalid mount target \"/\""),
            ("type=bind,target=/x,sharing=locked", "invalid cache sharing set for bind mount"),
            ("type=cache,target=/x,sharing=lock", "unsupported sharing value \"lock\""),
            ("type=secret", "one of source, target required"),
            ("target=/x,foo=1", "unexpected key 'foo' in 'foo=1'"),
            ("target=/x,foo", "invalid field 'foo' must be a key=value pair"),
        ] {
            let directory = context(&[("Dockerfile", &of(&format!("RUN --mount={flags} true\n")))]);
            way.fails("", &directory, sentence);
        }
    });
}

/// The value of a line `name=...` of what was printed.
fn said<'a>(printed: &'a str, name: &str) -> &'a str {
    let (_, rest) = printed.rsplit_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name} in {printed}"));
    rest.split_whitespace().next().unwrap()
}

/// What the daemon tells of caches whose description has `own`.
fn records(at: &At<'_>, own: &str) -> Vec<serde_json::Value> {
    let answer = at.daemon.get("/system/df?type=build-cache").unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let all = answer["BuildCache"].as_array().cloned().unwrap_or_default();
    all.into_iter()
        .filter(|record| record["Type"] == "exec.cachemount" && record["Description"].as_str().unwrap().contains(own))
        .collect()
}

#[test]
fn privileged_caches_are_there_again() {
    each_way(|way| {
        let id = way.name("kept");
        let text = of(&format!(
            "ARG N\nRUN --mount=type=cache,target=/c,id={id} echo {id} >> /c/lines; echo count=$(wc -l < /c/lines)\n\
             RUN --mount=type=cache,target=/d,id={id},uid=5,gid=6,mode=0750 : {id}; echo owner=$(stat -c %a:%u:%g /d)\n\
             RUN --mount=type=cache,target=/e,id={id},ro : {id}; ! touch /e/x && echo seen=$(wc -l < /e/lines)\n"
        ));
        let directory = context(&[("Dockerfile", &text)]);
        for count in ["1", "2", "3"] {
            let printed = way.build(&format!("--build-arg N={count}"), &directory);
            assert_eq!(
                (said(&printed, "count"), said(&printed, "owner"), said(&printed, "seen")),
                (count, "750:5:6", count)
            );
        }
        // A step does not depend on them.
        let printed = way.build("--build-arg N=3", &directory);
        assert!(way.is_known(&printed), "{printed}");
        let told = records(way.at(), &id);
        assert_eq!(told.len(), 2, "{told:?}");
        let size: i64 = told.iter().map(|record| record["Size"].as_i64().unwrap()).sum();
        let line = i64::try_from(id.len()).unwrap() + 1;
        // BuildKit measures each once, whenever somebody asks first.
        assert!(size == 3 * line || way.at().daemon.is_foreign(), "{told:?}");
        let wanted = format!(
            "cached mount /c from exec /bin/sh -c echo {id} >> /c/lines; echo count=$(wc -l < /c/lines) \
                              with id \"/{id}\""
        );
        assert!(told.iter().any(|record| record["Description"] == wanted.as_str()), "{told:?}");
        // Other builds go on at one that is not the test's own.
        if !way.at().daemon.is_foreign() {
            let printed = match way.cli {
                None => way.prune(),
                Some(_) => way.at().ok("builder prune --force --filter type=exec.cachemount"),
            };
            assert!(["\nTotal reclaimed space: ", "Total:"].iter().any(|told| printed.contains(told)), "{printed}");
            assert!(records(way.at(), &id).is_empty());
            assert_eq!(said(&way.build("--build-arg N=4", &directory), "count"), "1");
            assert_eq!(said(&way.build("--build-arg N=5", &directory), "count"), "2");
        }
        // What does all again begins with new ones, and others go on with those.
        let printed = way.build("--no-cache", &directory);
        assert_eq!((said(&printed, "count"), said(&printed, "seen")), ("1", "1"));
        assert_eq!(said(&way.build("--build-arg N=6", &directory), "count"), "2");
    });
}

#[test]
fn privileged_caches_begin_with_what_they_are_told() {
    each_way(|way| {
        let id = way.name("begun");
        let text = format!(
            "FROM busybox AS first\nRUN mkdir -p /s/t && echo {id} > /s/t/f && chown 7:8 /s && chmod 701 /s\n\
             FROM busybox\n\
             RUN --mount=type=cache,target=/c,id={id},from=first,source=/s \
             echo got=$(cat /c/t/f) owner=$(stat -c %a:%u:%g /c); ls /c; echo more > /c/more\n\
             RUN --mount=type=cache,target=/c,id={id},from=first,source=/s echo more=$(cat /c/more)\n"
        );
        let printed = way.build("--no-cache", &context(&[("Dockerfile", &text)]));
        assert_eq!(
            (said(&printed, "got"), said(&printed, "owner"), said(&printed, "more")),
            (id.as_str(), "701:7:8", "more")
        );
    });
}

/// Waits in a container until there is a file.
fn await_file(path: &str) -> String {
    format!("for i in $(seq 600); do [ -e {path} ] && break; sleep 0.1; done; rm {path}")
}

#[test]
fn privileged_caches_are_shared_as_they_are_told() {
    each_way(|way| {
        let id = way.name("shared");
        let both = |first: &str, second: &str| {
            // Which cache it is, is no part of what a step is known by.
            let text = |lines: &str| of(&format!("ARG OWN={id}\n{lines}"));
            let [one, two] = [first, second].map(|lines| context(&[("Dockerfile", &text(lines))]));
            // What is told of a build of BuildKit's goes to standard error.
            let mut command = Command::new("/bin/sh");
            let inner = way.command("", &one);
            command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(inner.get_program()).args(inner.get_args());
            for (name, value) in inner.get_envs() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
            let mut waiting = Piped::spawn(&mut command).unwrap();
            waiting.read_until("be-gun").unwrap();
            way.build("", &two);
            let ended = waiting.wait().unwrap();
            assert_eq!(ended.code, 0, "{ended:?}");
        };
        let mount = |sharing: &str, target: &str| {
            format!("--mount=type=cache,target=/{target},id={id}-{target}-{sharing},sharing={sharing}")
        };
        let begun = "echo be-gu$((0))n | tr -d 0";
        both(
            &format!("RUN {} touch /c/mine; {begun}; {}\n", mount("shared", "c"), await_file("/c/go")),
            &format!("RUN {} [ -e /c/mine ] && touch /c/go\n", mount("shared", "c")),
        );
        let private = format!("{} {}", mount("private", "c"), mount("shared", "s"));
        both(
            &format!("RUN {private} touch /c/mine; {begun}; {}\n", await_file("/s/go")),
            &format!("RUN {private} [ ! -e /c/mine ] && touch /s/go\n"),
        );
        // The second one begins when the first one has ended.
        let locked = mount("locked", "c");
        both(
            &format!("RUN {locked} touch /c/mine; {begun}; sleep 2; rm /c/mine\n"),
            &format!("RUN {locked} [ ! -e /c/mine ]\n"),
        );
    });
}

/// A secret, which nothing else in any file is.
const SECRET: &str = "s3cret-value-of-nobody";

#[test]
fn privileged_commands_see_secrets_that_images_have_not() {
    each_way(|way| {
        // Docker's own command line does not give any to this builder.
        if way.cli == Some(Cli::Docker) {
            return;
        }
        let image = way.name("secret");
        let text = of("RUN --mount=type=secret,id=tok [ $(cat /run/secrets/tok) = $(cat /run/secrets/tok) ] && \
             stat -c %a:%u:%g /run/secrets/tok > /got && wc -c < /run/secrets/tok >> /got && \
             grep ' /run/secrets/tok ' /proc/mounts | cut -d' ' -f3 >> /got && ! echo x 2>/dev/null > /run/secrets/tok\n\
             RUN --mount=type=secret,id=tok,target=/deep/er/t,uid=5,gid=6,mode=0440 stat -c %a:%u:%g /deep/er/t >> /got\n\
             RUN --mount=type=secret,id=var,env=TOKEN echo ${#TOKEN} >> /got; ls -d /run/secrets 2>/dev/null || true\n\
             RUN --mount=type=secret,id=tok,env=BOTH,target=/both [ \"$(echo \"$BOTH\")\" = \"$(cat /both)\" ]\n\
             RUN --mount=type=secret,id=tok,mode=7777,target=/m [ $(stat -c %a /m) = 777 ] && \
             grep -q ' /m tmpfs ro,nosuid,nodev' /proc/mounts\n\
             RUN --mount=type=secret,id=none,env=NONE env | grep -qx NONE=\n\
             RUN --mount=type=secret,id=none [ ! -e /run/secrets/none ]\n");
        let directory = context(&[("Dockerfile", &text)]);
        let elsewhere = context(&[("token", &format!("{SECRET}\n"))]);
        let flags = format!("--secret id=tok,src={}/token --secret id=var,env=OWN_TOKEN", path(&elsewhere));
        let build = |flags: &str, directory: &TempDir| {
            let mut command = way.command(flags, directory);
            testkit::process::run(command.env("OWN_TOKEN", SECRET), b"").unwrap()
        };
        let built = build(&format!("--no-cache -t {image} {flags}"), &directory);
        assert_eq!(built.code, 0, "{built:?}");
        assert!(!(built.stdout + &built.stderr).contains(SECRET));
        assert_eq!(way.at().run(&format!("{image} cat /got")), "400:0:0\n23\ntmpfs\n440:5:6\n22");
        let left = way.there(&image, "/run/secrets /deep /both /m");
        assert_eq!(left, "");
        for line in [format!("history --no-trunc {image}"), format!("inspect {image}")] {
            assert!(!way.at().ok(&line).contains(SECRET), "{line}");
        }
        // Another value does nothing anew.
        fs::write(elsewhere.path().join("token"), "another one").unwrap();
        let again = build(&flags, &directory);
        assert!(way.is_known(&(again.stdout + &again.stderr)));
        way.at().ok(&format!("rmi {image}"));
        let required = context(&[("Dockerfile", &of("RUN --mount=type=secret,id=none,required true\n"))]);
        way.fails(&flags, &required, "secret none: not found");
        way.fails("", &required, "secret none: not found");
        assert_nothing_is_left(way.at());
    });
}

#[test]
fn privileged_secrets_that_are_written_fail_the_build() {
    each_way(|way| {
        if way.cli == Some(Cli::Docker) || way.at().daemon.is_foreign() {
            return;
        }
        let elsewhere = context(&[("token", &format!("{SECRET}\n")), ("short", "1234567")]);
        let flags = format!("--secret id=tok,src={0}/token --secret id=short,src={0}/short", path(&elsewhere));
        for (mount, command, file) in [
            ("id=tok", "mkdir /root/x && cp /run/secrets/tok /root/x/.npmrc", "/root/x/.npmrc"),
            ("id=tok", "echo \"key=$(cat /run/secrets/tok);\" >> /etc/passwd", "/etc/passwd"),
            ("id=tok,env=T", "dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null; echo $T >> /big", "/big"),
        ] {
            let text = of(&format!("RUN --mount=type=secret,{mount} {command}\n"));
            let sentence = format!("the secret tok would be in the image: the command wrote it to {file}");
            way.fails(&flags, &context(&[("Dockerfile", &text)]), &sentence);
        }
        let fine = of("RUN --mount=type=secret,id=tok --mount=type=secret,id=short cp /run/secrets/short /kept && \
             cp /run/secrets/tok /gone && rm /gone\n");
        way.build(&format!("--no-cache {flags}"), &context(&[("Dockerfile", &fine)]));
        assert_nothing_is_left(way.at());
    });
}

/// Neither containers nor places of secrets.
fn assert_nothing_is_left(at: &At<'_>) {
    if at.daemon.is_foreign() {
        return;
    }
    assert_eq!(at.ok("ps -aq"), "");
    let nothing = || places(at.daemon).is_empty().then_some(());
    until("no secret is left", DEADLINE, nothing).unwrap();
}

/// Where a daemon of ours keeps secrets.
fn places(daemon: &Daemon) -> Vec<PathBuf> {
    let scratch = daemon.scratch();
    let shared = format!("longshore-{}-build-secrets-", scratch.key().unwrap());
    let below = |directory: PathBuf, start: &str| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
        ours.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    [below(scratch.exec_root(), "build-secrets-"), below("/dev/shm".into(), &shared)].concat()
}

/// A process that is ended with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `ssh-add` of the host's with its libraries, into a directory.
fn ssh_add(directory: &Path) {
    let program = ["/usr/bin/ssh-add", "/bin/ssh-add"].iter().find(|path| Path::new(path).exists()).unwrap();
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for path in listed.split_whitespace().filter(|word| word.starts_with('/')).chain([*program]) {
        let name = Path::new(path).file_name().unwrap();
        let name = if name.to_string_lossy().starts_with("ld-linux") { "loader".as_ref() } else { name };
        fs::copy(path, directory.join(name)).unwrap();
    }
}

#[test]
fn privileged_commands_speak_with_the_clients_agent() {
    if testkit::skip::without_root() {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let socket = keys.path().join("agent");
    let key = keys.path().join("key");
    let mut made = Command::new("ssh-keygen");
    made.args(["-q", "-t", "ed25519", "-N", "", "-C", "build-key", "-f"]).arg(&key);
    assert!(made.status().unwrap().success());
    let mut agent = Command::new("ssh-agent");
    let _agent = Ended(agent.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap());
    // Its socket is there a moment before it listens.
    until("the agent listens", DEADLINE, || std::os::unix::net::UnixStream::connect(&socket).ok()).unwrap();
    let added = Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert!(added.status.success(), "{added:?}");
    let tools = tempfile::tempdir().unwrap();
    ssh_add(tools.path());
    each_way(|way| {
        let run = "/t/loader --library-path /t /t/ssh-add -L";
        let text = of(&format!(
            "RUN --mount=type=ssh --mount=target=/t echo socket=$SSH_AUTH_SOCK && \
             if [ -e /run/buildkit/ssh_agent.0 ]; then {run} && stat -c mode=%a:%u /run/buildkit/ssh_agent.0; fi\n\
             RUN --mount=type=ssh,target=/s,mode=0666,uid=7 --mount=target=/t \
             if [ -e /s ]; then {run} && stat -c mode=%a:%u /s; fi\n\
             RUN ls -d /run/buildkit /s 2>/dev/null || true\n"
        ));
        let directory = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(tools.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        fs::write(directory.path().join("Dockerfile"), &text).unwrap();
        let image = way.name("agent");
        let required = context(&[("Dockerfile", &of("RUN --mount=type=ssh,required true\n"))]);
        let sentence = match way.cli {
            // It has no session, and nobody to ask.
            Some(Cli::Docker) => "no SSH key \"default\" forwarded from the client",
            _ => "unset ssh forward key default",
        };
        way.fails("", &required, sentence);
        if way.cli == Some(Cli::Docker) {
            return drop(way.build("--no-cache", &directory));
        }
        let printed = way.build(&format!("--no-cache -t {image} --ssh default={}", socket.display()), &directory);
        assert_eq!(printed.matches(" build-key").count(), 2, "{printed}");
        for wanted in ["socket=/run/buildkit/ssh_agent.0", "mode=600:0", "mode=666:7"] {
            assert!(printed.contains(wanted), "{wanted} in {printed}");
        }
        // The same of files of keys, for which there is no agent but the client.
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        let public = public.split(' ').nth(1).unwrap();
        let printed = way.build(&format!("--no-cache -t {image} --ssh default={}", key.display()), &directory);
        assert_eq!(printed.matches(public).count(), 2, "{printed}");
        let left = way.there(&image, "/run/buildkit /s /t");
        assert_eq!(left, "");
        let both = format!("--ssh default={},{}", key.display(), socket.display());
        way.fails(&both, &directory, "invalid combination of keys and sockets");
        way.at().ok(&format!("rmi {image}"));
        assert_nothing_is_left(way.at());
    });
}

/// Files below a directory that the secret is in.
fn with_secret(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let has_secret = || {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
        };
        match () {
            () if kind.is_dir() => found.extend(with_secret(&entry.path())),
            () if kind.is_file() && has_secret() => found.push(entry.path()),
            () => {}
        }
    }
    found
}

#[test]
fn privileged_a_dead_daemon_leaves_no_mounts_of_builds() {
    ours(|daemon| {
        let text =
            of("RUN --mount=type=cache,target=/c,id=kept,sharing=locked --mount=type=secret,id=tok,env=T,target=/tok \
             --mount=type=tmpfs,target=/t --mount=target=/ctx,rw --mount=from=busybox,target=/i,rw \
             echo x >> /c/lines; echo lines=$(wc -l < /c/lines); [ -e /ctx/go ] || (echo begun; sleep 1000)\n");
        let directory = context(&[("Dockerfile", &text)]);
        let elsewhere = context(&[("token", SECRET)]);
        let build = format!("build --secret id=tok,src={}/token {}", path(&elsewhere), path(&directory));
        let at = At { daemon, cli: Cli::Longshore };
        let mut client = at.spawn(&build);
        client.read_until("begun\n").unwrap();
        let kept = places(daemon);
        assert_eq!(kept.len(), 1);
        // On no disk, record or socket's side is it.
        let found = with_secret(daemon.scratch().path());
        assert!(found.iter().all(|path| path.starts_with(&kept[0])), "{found:?}");
        daemon.kill9().unwrap();
        drop(client);
        daemon.restart().unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        let nothing = || (places(daemon).is_empty() && at.ok("ps -aq").is_empty()).then_some(());
        until("nothing is left of the build", DEADLINE, nothing).unwrap();
        let root = daemon.scratch().path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&root) && line.contains("build")).collect();
        assert!(left.is_empty(), "{left:?}");
        fs::write(directory.path().join("go"), "").unwrap();
        // Nobody has it any more, and it is what it was.
        assert_eq!(said(&at.ok(&build), "lines"), "2");
        // A client that goes takes its build with it, and that the lock.
        fs::remove_file(directory.path().join("go")).unwrap();
        let mut client = at.spawn(&build);
        client.read_until("begun\n").unwrap();
        client.signal(Signal::KILL).unwrap();
        client.wait().unwrap();
        fs::write(directory.path().join("go"), "again").unwrap();
        assert_eq!(said(&at.ok(&build), "lines"), "4");
        assert_nothing_is_left(&at);
    });
}
