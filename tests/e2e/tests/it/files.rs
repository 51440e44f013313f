//! Files of containers: `cp`, `diff`, `export`, `commit`, `import`, `container prune`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, http, process};

use crate::support::{At, on_both, ours};

/// Types `line`, whose output is bytes.
fn bytes(at: &At<'_>, line: &str) -> Vec<u8> {
    println!("{line}");
    let output = at.command(line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The names in a tar archive, as Debian's tar reads it, sorted.
fn names(archive: &[u8]) -> Vec<String> {
    let mut command = std::process::Command::new("tar");
    let listed = process::run(command.args(["-tPf", "-"]), archive).unwrap();
    let mut names: Vec<String> = listed.success().unwrap().lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// A directory of the user's: `src` with a file, a link, a directory; and a file of somebody's.
fn local() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    fs::create_dir_all(src.join("sub")).unwrap();
    fs::write(src.join("one"), "one\n").unwrap();
    fs::write(src.join("sub/two"), "two\n").unwrap();
    symlink("one", src.join("link")).unwrap();
    fs::write(dir.path().join("file"), "file\n").unwrap();
    fs::set_permissions(dir.path().join("file"), PermissionsExt::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(dir.path().join("file"), Some(12), Some(13)).unwrap();
    dir
}

/// Whether any mount of the machine, in the namespaces of this process and the daemon's, names `text`.
fn is_mounted(daemon: &Daemon, text: &str) -> bool {
    let of = |process: &str| fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
    let daemons = daemon.pid().map(|pid| of(&pid.to_string())).unwrap_or_default();
    of("self").contains(text) || daemons.contains(text)
}

#[test]
fn privileged_files_go_in_by_dockers_rules() {
    on_both(|at| {
        let (name, dir) = (at.name("in"), local());
        let path = dir.path().display();
        at.start(&name, "busybox sleep 1000");
        let sh = |script: &str| at.ok(&format!("exec {name} sh -c '{script}'"));
        sh("mkdir -p /d; echo f >/f; ln -s /d /ld; ln -s /nope /broken; ln -s f /lf");
        let cp = |from: &str, to: &str| at.ok(&format!("cp {path}/{from} {name}:{to}"));
        cp("src", "/d");
        cp("src", "/new");
        cp("src/.", "/d");
        cp("file", "/d/renamed");
        cp("file", "/ld");
        cp("file", "/broken");
        cp("file", "/lf");
        assert_eq!(
            sh("find /d /new | sort"),
            "/d\n/d/file\n/d/link\n/d/one\n/d/renamed\n/d/src\n/d/src/link\n/d/src/one\n/d/src/sub\n/d/src/sub/two\n\
             /d/sub\n/d/sub/two\n/new\n/new/link\n/new/one\n/new/sub\n/new/sub/two"
        );
        assert_eq!(sh("stat -c \"%u %g %a\" /d/renamed; cat /nope /f; readlink /d/link"), "12 13 640\nfile\nfile\none");
        let missing = |path: &str| format!("Error response from daemon: Could not find the file {path} in container");
        for (from, to, sentence) in [
            ("file", "/nodir/", "no such directory"),
            ("file", "/nodir/x", &missing("/nodir")),
            ("src", "/f", "cannot copy directory"),
            ("src/sub", "/d/one", "cannot copy directory"),
            ("nosuch", "/", "no such file or directory"),
        ] {
            at.fails(&format!("cp {path}/{from} {name}:{to}"), 1, sentence);
        }
        at.ok(&format!("cp -L {path}/src/link {name}:/d/followed"));
        assert_eq!(sh("cat /d/followed; test -L /d/followed || echo file"), "one\nfile");
        // A tar archive goes in as it is, into a directory alone.
        let tar = bytes(at, &format!("cp {name}:/new -"));
        assert_eq!(names(&tar), ["new/", "new/link", "new/one", "new/sub/", "new/sub/two"]);
        sh("mkdir /t");
        let output = at.with_input(&format!("cp - {name}:/t"), &tar);
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(sh("cat /t/new/sub/two"), "two");
        at.fails(&format!("cp - {name}:/f"), 1, &format!("destination \"{name}:/f\" must be a directory"));
        at.fails("cp a b", 1, "must specify at least one container source");
        at.fails(&format!("cp {name}:/a {name}:/b"), 1, "copying between containers is not supported");
        at.fails("cp nosuch:/a b", 1, "No such container: nosuch");
        at.remove(&name);
    });
}

#[test]
fn privileged_files_come_out_by_dockers_rules() {
    on_both(|at| {
        let (name, dir) = (at.name("out"), tempfile::tempdir().unwrap());
        let path = |name: &str| dir.path().join(name);
        at.start(&name, "busybox sleep 1000");
        let script =
            "mkdir -p /d/s; echo x >/d/s/f; ln /d/s/f /d/hard; ln -s /d/s/f /d/l; chown 5:6 /d/s/f; chmod 4755 /d/s/f";
        at.ok(&format!("exec {name} sh -c '{script}'"));
        fs::create_dir(path("there")).unwrap();
        let cp =
            |options: &str, from: &str, to: &str| at.ok(&format!("cp {options} {name}:{from} {}", path(to).display()));
        cp("", "/d", "there");
        cp("", "/d", "new");
        cp("", "/d/.", "inner");
        cp("", "/d/s/f", "renamed");
        cp("", "/d/l", "link");
        cp("-L", "/d/l", "followed");
        for place in ["there/d/s/f", "new/s/f", "inner/s/f", "renamed", "followed"] {
            assert_eq!(fs::read_to_string(path(place)).unwrap(), "x\n", "{place}");
        }
        assert_eq!(fs::read_link(path("link")).unwrap(), Path::new("/d/s/f"));
        let found = fs::metadata(path("renamed")).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o4755));
        assert_eq!(fs::metadata(path("new/hard")).unwrap().ino(), fs::metadata(path("new/s/f")).unwrap().ino());
        at.fails(&format!("cp {name}:/nope {}", path("x").display()), 1, "Could not find the file /nope in container");
        let deep = path("no/x");
        at.fails(&format!("cp {name}:/d {}", deep.display()), 1, "invalid output path: directory");
        at.fails(&format!("cp {name}:/d {}", path("renamed").display()), 1, "cannot copy directory");
        // What stops is there, too, and what is put in then is there when it runs.
        at.ok(&format!("stop -t 0 {name}"));
        cp("", "/d/s/f", "stopped");
        fs::write(path("later"), "later").unwrap();
        at.ok(&format!("cp {} {name}:/d/later", path("later").display()));
        assert!(!is_mounted(at.daemon, &at.inspect(&name, "{{.Id}}")));
        at.ok(&format!("start {name}"));
        assert_eq!(at.ok(&format!("exec {name} cat /d/later")), "later");
        at.remove(&name);
        // One that never ran.
        at.ok(&format!("create --network none --name {name} busybox true"));
        cp("", "/etc/passwd", "passwd");
        assert!(fs::read_to_string(path("passwd")).unwrap().starts_with("root:"));
        at.remove(&name);
    });
}

#[test]
fn privileged_paths_lead_into_the_containers_mounts() {
    on_both(|at| {
        let Some(shared) = at.daemon.shared_dir().unwrap() else {
            return testkit::skip::report("no directory that the daemon sees");
        };
        let (name, data, dir) = (at.name("mounts"), at.name("data"), tempfile::tempdir().unwrap());
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        let file = file.display();
        let options = format!(
            "--network none --read-only -v {data}:/data -v {0}:/bound -v {0}:/fixed:ro -w /data --name {name}",
            shared.path().display()
        );
        at.ok(&format!("run -d {options} busybox sleep 1000"));
        for state in ["running", "exited"] {
            assert_eq!(at.inspect(&name, "{{.State.Status}}"), state);
            at.ok(&format!("cp {file} {name}:/data/{state}"));
            at.ok(&format!("cp {file} {name}:/bound/{state}"));
            assert_eq!(fs::read_to_string(shared.path().join(state)).unwrap(), "text");
            assert_eq!(names(&bytes(at, &format!("cp {name}:/fixed/{state} -"))), [state]);
            at.fails(&format!("cp {file} {name}:/fixed/x"), 1, "mounted volume is marked read-only");
            at.fails(&format!("cp {file} {name}:/x"), 1, "container rootfs is marked read-only");
            // Files that are mounts of their own.
            let hosts = bytes(at, &format!("cp {name}:/etc/hosts -"));
            assert!(String::from_utf8_lossy(&hosts).contains("localhost"), "{state}");
            if state == "running" {
                at.ok(&format!("stop -t 0 {name}"));
            }
        }
        assert_eq!(at.run(&format!("-v {data}:/d busybox ls /d")), "exited\nrunning");
        at.remove(&name);
        at.ok(&format!("volume rm {data}"));
    });
}

#[test]
fn privileged_what_is_mounted_is_not_replaced_behind_the_containers_back() {
    on_both(|at| {
        let (name, dir) = (at.name("busy"), tempfile::tempdir().unwrap());
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        at.start(&name, "busybox sleep 1000");
        for state in ["running", "exited"] {
            assert_eq!(at.inspect(&name, "{{.State.Status}}"), state);
            let line = format!("cp {} {name}:/etc/hosts", file.display());
            at.fails(&line, 1, "RemoveAll hosts: device or resource busy");
            let hosts = bytes(at, &format!("cp {name}:/etc/hosts -"));
            assert!(String::from_utf8_lossy(&hosts).contains("localhost"), "{state}");
            if state == "running" {
                assert!(at.ok(&format!("exec {name} cat /etc/hosts")).contains("localhost"));
                at.ok(&format!("stop -t 0 {name}"));
            }
        }
        at.remove(&name);
    });
}

/// CVE-2018-15664 and its kin: whatever a container's links say, the host's files are neither read nor written.
#[test]
fn privileged_links_of_a_container_never_leave_it() {
    ours(|daemon| {
        let host = daemon.scratch().path().join("victim");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("secret"), "secret").unwrap();
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let (name, dir) = (at.name("links"), tempfile::tempdir().unwrap());
            let file = dir.path().join("file");
            fs::write(&file, "text").unwrap();
            at.start(&name, "--pid host --cap-add SYS_ADMIN busybox sleep 1000");
            let victim = host.display();
            let script = format!(
                "ln -s {victim} /out; ln -s /proc/1/root /root1; ln -s ../../../../..{victim} /up; \
                 mkdir /in; ln -s /proc/1/root{victim} /in/deep; ln -s {victim}/secret /file"
            );
            at.ok(&format!("exec {name} sh -c '{script}'"));
            for link in ["out", "up", "root1/etc/hostname", "in/deep"] {
                let put = at.line(&format!("cp {} {name}:/{link}/secret", file.display()));
                assert_eq!(put.code, 1, "{link}: {put:?}");
                let got = at.line(&format!("cp {name}:/{link}/secret {}", dir.path().join("got").display()));
                assert_eq!(got.code, 1, "{link}: {got:?}");
            }
            // The link itself is replaced, or followed to nothing.
            let _ = at.line(&format!("cp {} {name}:/file", file.display()));
            let tar = bytes(&at, &format!("cp {name}:/in -"));
            assert_eq!(names(&tar), ["in/", "in/deep"]);
            assert_eq!(fs::read_to_string(host.join("secret")).unwrap(), "secret");
            assert_eq!(fs::read_dir(&host).unwrap().count(), 1);
            at.remove(&name);
        }
    });
}

/// A container exchanges a directory and a link to the host's as fast as it can while files are copied through it.
#[test]
fn privileged_a_race_for_a_link_is_not_won() {
    ours(|daemon| {
        let host = daemon.scratch().path().join("victim");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("f"), "secret").unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        let (name, dir) = (at.name("race"), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("f"), "text").unwrap();
        let script = format!(
            "mkdir -p /d/x; echo inside >/d/x/f; ln -s {} /d/l; \
             while :; do mv -T /d/x /d/y; mv -T /d/l /d/x; mv -T /d/x /d/l; mv -T /d/y /d/x; done",
            host.display()
        );
        at.start(&name, &format!("busybox sh -c '{script}'"));
        for _ in 0..40 {
            // Either may find nothing.
            let _ = at.line(&format!("cp {} {name}:/d/x/f", dir.path().join("f").display()));
            let got = at.command(&format!("cp {name}:/d/x/f -")).output().unwrap();
            assert!(!String::from_utf8_lossy(&got.stdout).contains("secret"));
        }
        assert_eq!(fs::read_to_string(host.join("f")).unwrap(), "secret");
        at.remove(&name);
    });
}

#[test]
fn privileged_the_api_of_archives_is_dockers() {
    on_both(|at| {
        let name = at.name("api");
        at.start(&name, "--user 7:8 busybox sleep 1000");
        at.ok(&format!("exec --user 0 {name} sh -c 'mkdir -m 777 /d; ln -s d/nope /l; echo x >/d/f'"));
        let ask = |method: &str, path: &str| {
            let path = format!("/containers/{name}/archive?path={path}");
            http::request(at.daemon.socket(), method, &path, None).unwrap()
        };
        let stat = |path: &str| {
            let header = ask("HEAD", path).header("x-docker-container-path-stat").unwrap().to_owned();
            let mut command = std::process::Command::new("base64");
            let text = process::run(command.arg("-d"), header.as_bytes()).unwrap();
            let stat: serde_json::Value = serde_json::from_str(text.success().unwrap()).unwrap();
            (stat["name"].clone(), stat["mode"].as_u64().unwrap(), stat["linkTarget"].clone())
        };
        assert_eq!(stat("/d"), ("d".into(), (1 << 31) | 0o777, "".into()));
        assert_eq!(stat("/d/."), (".".into(), (1 << 31) | 0o777, "".into()));
        assert_eq!(stat("/d/.."), ("..".into(), (1 << 31) | 0o755, "".into()));
        assert_eq!(stat("d/f"), ("f".into(), 0o644, "".into()));
        assert_eq!(stat("/l"), ("l".into(), (1 << 27) | 0o777, "/d/nope".into()));
        let answer = ask("GET", "/d");
        assert_eq!(answer.header("content-type"), Some("application/x-tar"));
        assert_eq!(names(&answer.body), ["d/", "d/f"]);
        for (method, path, status, sentence) in [
            ("GET", "/nope", 404, format!("Could not find the file /nope in container {name}")),
            ("GET", "", 400, "bad parameter: pathcannot be empty".to_owned()),
            ("PUT", "/nope", 404, format!("Could not find the file /nope in container {name}")),
            ("PUT", "/d/f", 400, "extraction point is not a directory".to_owned()),
        ] {
            let answer = ask(method, path);
            assert_eq!((answer.status, answer.message()), (status, sentence), "{method} {path}");
        }
        // Kinds of files do not replace each other if that is asked; and the owner is the container's user.
        let put = |query: &str, body: &[u8]| {
            let head = format!(
                "PUT /containers/{name}/archive?path=/d&{query} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
                 Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            http::raw(at.daemon.socket(), &[head.as_bytes(), body].concat()).unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("f")).unwrap();
        let mut command = std::process::Command::new("tar");
        let tar = command.arg("-C").arg(dir.path()).args(["-cf", "-", "f"]).output().unwrap().stdout;
        let refused = put("noOverwriteDirNonDir=true", &tar);
        assert_eq!(refused.status, 500);
        assert_eq!(refused.message(), "cannot overwrite non-directory \"f\" with directory \"/d\"");
        assert_eq!(put("copyUIDGID=1", &tar).status, 200);
        assert_eq!(at.ok(&format!("exec {name} stat -c '%F %u %g' /d/f")), "directory 7 8");
        at.remove(&name);
    });
}

#[test]
fn privileged_changes_are_told_by_path() {
    on_both(|at| {
        let name = at.name("diff");
        let script = "mkdir /a; echo x >/a/f; rm /etc/group; echo y >>/etc/passwd; chmod 700 /home; sleep 1000";
        at.start(&name, &format!("-v /vol busybox sh -c '{script}'"));
        let diff = || {
            let mut lines: Vec<String> = at.ok(&format!("diff {name}")).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let wanted = ["A /a", "A /a/f", "A /vol", "C /etc", "C /etc/passwd", "C /home", "D /etc/group"];
        until("the changes are there", DEADLINE, || (diff() == wanted).then_some(())).unwrap();
        at.ok(&format!("stop -t 0 {name}"));
        assert_eq!(diff(), wanted);
        at.remove(&format!("-v {name}"));
        at.ok(&format!("create --network none --name {name} busybox true"));
        assert_eq!(at.ok(&format!("diff {name}")), "");
        assert_eq!(at.daemon.get(&format!("/containers/{name}/changes")).unwrap().text().trim(), "null");
        at.remove(&name);
        at.fails("diff nosuch", 1, "No such container: nosuch");
    });
}

#[test]
fn privileged_a_container_becomes_an_image() {
    on_both(|at| {
        let (name, image) = (at.name("commit"), at.image("committed"));
        at.start(&name, "--label k=v -e A=1 busybox sleep 1000");
        let script = "mkdir -p /w/empty; echo new >/w/f; ln /w/f /w/hard; rm /etc/group; rm -r /var; mkdir /var; \
                      echo v >/var/v; chown 3:4 /w/f; dd if=/dev/zero of=/w/hole bs=1 count=1 seek=100M 2>/dev/null";
        at.ok(&format!("exec {name} sh -c '{script}'"));
        let changes = "-c 'CMD [\"cat\",\"/w/f\"]' -c 'ENV PATH=$PATH:/zz B=\"two words\"' -c 'EXPOSE 80'";
        let id = at.ok(&format!("commit -m why -a me {changes} {name} {image}:1"));
        assert_eq!(at.ok(&format!("inspect -f '{{{{.Id}}}}' {image}:1")), id);
        assert_eq!(at.run(&format!("{image}:1")), "new");
        let look = "ls /etc/group; ls /var; stat -c '%u %g %h' /w/f; stat -c %s /w/hole; ls -d /w/empty; echo $B$A";
        let output = at.with_input(&format!("run -i --rm --network none {image}:1 sh"), look.as_bytes());
        assert_eq!(output.stdout.trim(), "v\n3 4 2\n104857601\n/w/empty\ntwo words1");
        let template =
            "{{.Comment}} {{.Author}} {{json .Config.Labels}} {{json .Config.ExposedPorts}} {{len .RootFS.Layers}}";
        let found = at.ok(&format!("image inspect -f '{template}' {image}:1"));
        assert_eq!(found, "why me {\"k\":\"v\"} {\"80/tcp\":{}} 2");
        assert_eq!(at.ok(&format!("image inspect -f '{{{{.Parent}}}}' {image}:1")), at.inspect(&name, "{{.Image}}"));
        let history = at.ok(&format!("history --format '{{{{.CreatedBy}}}}|{{{{.Comment}}}}' {image}:1"));
        assert_eq!(history.lines().next(), Some("sleep 1000|why"));
        // It goes on, and what is committed again without a change is one layer more that is empty.
        assert_eq!(at.inspect(&name, "{{.State.Running}}"), "true");
        assert_eq!(at.ok(&format!("exec {name} cat /w/f")), "new");
        for (line, sentence) in [
            (format!("commit -c 'FROM x' {name}"), "FROM is not a valid change command"),
            (format!("commit -c ENV {name}"), "ENV requires at least one argument"),
            (format!("commit {name} BAD:x"), "must be lowercase"),
            ("commit nosuch".to_owned(), "No such container: nosuch"),
        ] {
            at.fails(&line, 1, sentence);
        }
        at.remove(&name);
        at.ok(&format!("rmi {image}:1"));
    });
}

#[test]
fn privileged_a_root_goes_out_and_comes_in_as_an_image() {
    on_both(|at| {
        let (name, image, dir) = (at.name("export"), at.image("imported"), tempfile::tempdir().unwrap());
        at.start(&name, "-v /vol busybox sleep 1000");
        at.ok(&format!("exec {name} sh -c 'echo in >/vol/f; echo out >/f; mkfifo /p; rm /etc/group'"));
        let file = dir.path().join("root.tar");
        at.ok(&format!("export -o {} {name}", file.display()));
        let tar = fs::read(&file).unwrap();
        let listed = names(&tar);
        for there in ["f", "p", "vol/", "etc/passwd", ".dockerenv"] {
            assert!(listed.iter().any(|name| name == there), "{there} in {listed:?}");
        }
        for absent in ["vol/f", "etc/group", "./", "proc/1/"] {
            assert!(!listed.iter().any(|name| name == absent), "{absent} in {listed:?}");
        }
        // The same tree gives the same bytes, running or not.
        assert!(bytes(at, &format!("export {name}")) == tar);
        at.ok(&format!("stop -t 0 {name}"));
        assert!(bytes(at, &format!("export {name}")) == tar);
        let line = format!("import -m why -c 'CMD [\"cat\",\"/f\"]' {} {image}:1", file.display());
        let id = at.ok(&line);
        assert_eq!(at.ok(&format!("inspect -f '{{{{.Id}}}}' {image}:1")), id);
        assert_eq!(at.run(&format!("{image}:1")), "out");
        let found =
            at.ok(&format!("image inspect -f '{{{{.Comment}}}} {{{{.Os}}}} {{{{len .RootFS.Layers}}}}' {image}:1"));
        assert_eq!(found, "why linux 1");
        let output = at.with_input(&format!("import - {image}:2"), &tar);
        assert!(output.success().unwrap().starts_with("sha256:"), "{output:?}");
        at.fails("import /nosuch/file", 1, "no such file or directory");
        let broken = at.with_input("import -", &[1; 2000]);
        assert_eq!(broken.code, 1, "{broken:?}");
        at.remove(&format!("-v {name}"));
        at.ok(&format!("rmi {image}:1 {image}:2"));
    });
}

#[test]
fn privileged_stopped_containers_are_pruned() {
    on_both(|at| {
        let (one, two, runs, label) = (at.name("one"), at.name("two"), at.name("runs"), at.name("label"));
        at.ok(&format!("create --label {label} --network none --name {one} busybox true"));
        at.ok(&format!("run --label {label} --label keep --network none --name {two} busybox sh -c 'echo 12345 >/f'"));
        at.start(&runs, &format!("--label {label} busybox sleep 1000"));
        let left = || at.ok(&format!("ps -a --filter label={label} --format '{{{{.Names}}}}'")).lines().count();
        let prune = |rest: &str| at.ok(&format!("container prune -f --filter label={label} {rest}"));
        assert_eq!(prune("--filter until=1h"), "Total reclaimed space: 0B");
        assert_eq!(left(), 3);
        let id = at.inspect(&one, "{{.Id}}");
        assert_eq!(prune("--filter label!=keep"), format!("Deleted Containers:\n{id}\n\nTotal reclaimed space: 0B"));
        let asked = at.with_input(&format!("container prune --filter label={label}"), b"n\n");
        let question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ";
        assert_eq!((asked.code, asked.stdout.starts_with(question)), (0, true), "{asked:?}");
        assert_eq!(left(), 2);
        assert!(prune("").ends_with("Total reclaimed space: 6B"));
        assert_eq!(left(), 1);
        at.fails("container prune -f --filter bad=1", 1, "invalid filter 'bad'");
        at.fails("container prune -f --filter until=x", 1, "failed to parse value as time or duration: \"x\"");
        at.remove(&runs);
    });
}

#[test]
fn privileged_what_is_done_with_files_is_told() {
    on_both(|at| {
        let (name, image, dir) = (at.name("told"), at.image("told"), tempfile::tempdir().unwrap());
        at.start(&name, "busybox sleep 1000");
        let mut events = at.events(&name);
        fs::write(dir.path().join("f"), "").unwrap();
        at.ok(&format!("cp {} {name}:/f", dir.path().join("f").display()));
        at.ok(&format!("cp {name}:/f {}", dir.path().join("g").display()));
        at.ok(&format!("export -o {} {name}", dir.path().join("tar").display()));
        at.ok(&format!("commit -m why {name} {image}:1"));
        for action in ["extract-to-dir", "archive-path", "export", "pause", "commit", "unpause"] {
            events.until(action).unwrap();
        }
        at.remove(&name);
        at.ok(&format!("rmi {image}:1"));
    });
}

#[test]
fn privileged_a_daemon_that_dies_leaves_no_mount_and_no_standstill() {
    ours(|daemon| {
        let at = At { daemon: &*daemon, cli: Cli::Longshore };
        let (stopped, runs, commits) = (at.name("stopped"), at.name("runs"), at.name("commits"));
        for name in [&stopped, &runs] {
            at.start(name, "-v /vol busybox sleep 1000");
            at.ok(&format!("exec {name} sh -c 'dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null'"));
        }
        // Longer than a kill takes: most of a second of packing.
        at.start(&commits, "busybox sh -c 'i=0; while :; do i=$((i+1)); echo $i >/dev/shm/n; done'");
        at.ok(&format!("exec {commits} sh -c 'dd if=/dev/urandom of=/big bs=1M count=300 2>/dev/null'"));
        at.ok(&format!("stop -t 0 {stopped}"));
        let ids: Vec<String> = [&stopped, &runs].iter().map(|name| at.inspect(name, "{{.Id}}")).collect();
        let mut clients = Vec::new();
        for name in [&stopped, &runs] {
            let mut stream = http::connect(daemon.socket()).unwrap();
            write!(stream, "GET /containers/{name}/archive?path=/ HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
            let mut reader = std::io::BufReader::new(stream);
            assert_eq!(http::read_head(&mut reader).unwrap().status, 200);
            clients.push(reader);
        }
        let committing = at.spawn(&format!("commit {commits} cut:1"));
        let pid = at.inspect(&commits, "{{.State.Pid}}");
        let count = || fs::read_to_string(format!("/proc/{pid}/root/dev/shm/n")).unwrap_or_default();
        let mark = "committing";
        let marked = || {
            let dir = daemon.scratch().path().join("exec/containers").join(at.inspect(&commits, "{{.Id}}"));
            dir.join(mark).exists().then_some(())
        };
        until("the commit holds the container still", DEADLINE, marked).unwrap();
        daemon.kill9().unwrap();
        drop((clients, committing));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(ids.iter().all(|id| !mounts.contains(id.as_str())));
        daemon.restart().unwrap();
        let before = count();
        until("the container goes on", DEADLINE, || (count() != before && !count().is_empty()).then_some(())).unwrap();
        let at = At { daemon: &*daemon, cli: Cli::Longshore };
        at.fails("image inspect cut:1", 1, "No such image: cut:1");
        at.ok(&format!("start {stopped}"));
        at.ok(&format!("exec {stopped} ls /big"));
        for name in [&stopped, &runs, &commits] {
            at.remove(&format!("-v {name}"));
        }
    });
}
