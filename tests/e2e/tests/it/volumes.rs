//! Volumes: named ones, those that nobody named, and what an image puts into them.

use std::collections::BTreeSet;
use std::time::Duration;

use testkit::mutate::Mutator;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, Events};

use crate::support::{At, on_both, ours};

const MOUNTS: &str = "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.Mode}} {{.RW}} {{.Driver}};{{end}}";

/// The names of a container's volumes.
fn volumes_of(at: &At<'_>, container: &str) -> Vec<String> {
    let names = at.inspect(container, "{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}} {{end}}{{end}}");
    names.split_whitespace().map(str::to_owned).collect()
}

/// The one volume of a container.
fn volume_of(at: &At<'_>, container: &str) -> String {
    let names = volumes_of(at, container);
    assert_eq!(names.len(), 1, "{names:?}");
    names[0].clone()
}

fn exists(at: &At<'_>, volume: &str) -> bool {
    at.ok("volume ls -q").lines().any(|name| name == volume)
}

#[test]
fn privileged_a_named_volume_outlives_its_containers() {
    on_both(|at| {
        let data = at.name("data");
        assert_eq!(at.run(&format!("-v {data}:/d busybox sh -c 'echo kept >/d/file; id -u >/d/user'")), "");
        assert_eq!(at.run(&format!("-v {data}:/elsewhere/deep busybox cat /elsewhere/deep/file")), "kept");
        at.fails(&format!("run --rm --network none -v {data}:/d:ro busybox touch /d/file"), 1, "Read-only file system");
        assert_eq!(at.ok(&format!("volume rm {data}")), data);
        at.fails(&format!("volume inspect {data}"), 1, &format!("get {data}: no such volume"));
        // A new one of that name is empty.
        assert_eq!(at.run(&format!("-v {data}:/d busybox ls /d")), "");
        at.ok(&format!("volume rm {data}"));
    });
}

#[test]
fn privileged_a_new_volume_holds_what_the_image_holds() {
    on_both(|at| {
        let (etc, empty) = (at.name("etc"), at.name("empty"));
        assert_eq!(at.run(&format!("-v {etc}:/etc busybox true")), "");
        assert!(at.run(&format!("-v {etc}:/m busybox cat /m/passwd")).starts_with("root:x:0:0:"));
        // What is in it stays, and is not filled again.
        at.run(&format!("-v {etc}:/m busybox rm /m/passwd"));
        at.fails(&format!("run --rm --network none -v {etc}:/etc busybox cat /etc/passwd"), 1, "No such file");
        at.run(&format!("-v {empty}:/etc:nocopy busybox true"));
        assert!(!at.run(&format!("-v {empty}:/m busybox ls /m")).contains("passwd"));
        at.ok(&format!("volume rm {etc} {empty}"));
    });
}

#[test]
fn privileged_volumes_that_nobody_named_go_with_rm_v_and_rm() {
    on_both(|at| {
        let name = at.name("c");
        at.ok(&format!("run --network none --name {name} -v /anon busybox sh -c 'echo x >/anon/file'"));
        let volume = volume_of(at, &name);
        assert_eq!(volume.len(), 64);
        assert_eq!(at.inspect(&name, MOUNTS), format!("volume {volume} /anon  true local;"));
        assert_eq!(at.inspect(&name, "{{json .Config.Volumes}}"), r#"{"/anon":{}}"#);
        assert_eq!(
            at.ok(&format!("volume inspect -f '{{{{json .Labels}}}} {{{{.Driver}}}}' {volume}")),
            r#"{"com.docker.volume.anonymous":""} local"#
        );
        at.fails(&format!("volume rm {volume}"), 1, &format!("remove {volume}: volume is in use - ["));
        at.ok(&format!("rm {name}"));
        assert!(exists(at, &volume), "rm alone keeps it");
        // Whoever names it has a named one.
        assert_eq!(at.run(&format!("-v {volume}:/v busybox cat /v/file")), "x");
        assert!(exists(at, &volume));
        at.ok(&format!("volume rm {volume}"));

        at.ok(&format!("create --network none --name {name} -v /anon busybox true"));
        let volume = volume_of(at, &name);
        let filters = format!("all=1&filters=%7B%22name%22:%5B%22{name}%22%5D%7D");
        let listed = at.daemon.get(&format!("/containers/json?{filters}")).unwrap().json().unwrap();
        let mount = &listed[0]["Mounts"][0];
        assert_eq!(
            (&mount["Name"], &mount["Source"]),
            (&volume.as_str().into(), &"".into()),
            "lists do not say where it is"
        );
        at.ok(&format!("rm -v {name}"));
        assert!(!exists(at, &volume), "rm -v takes it");

        let before: BTreeSet<String> = at.ok("volume ls -q").lines().map(str::to_owned).collect();
        at.start(&name, "--rm -v /anon busybox sleep 1000");
        let volume = volume_of(at, &name);
        assert!(exists(at, &volume));
        at.ok(&format!("rm -vf {name}"));
        assert!(!exists(at, &volume));
        at.run("-v /anon busybox true");
        if !at.daemon.is_foreign() {
            assert_eq!(at.ok("volume ls -q").lines().map(str::to_owned).collect::<BTreeSet<_>>(), before);
        }
    });
}

#[test]
fn privileged_volumes_of_an_image_are_honoured() {
    ours(|daemon| {
        daemon.load(testkit::images::Archive::Volumes).unwrap();
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let name = at.name("c");
            at.ok(&format!("create --network none --name {name} volumes /bin/busybox ls -ln /data /new"));
            let mut places: Vec<String> =
                at.inspect(&name, "{{range .Mounts}}{{.Destination}} {{end}}").split(' ').map(str::to_owned).collect();
            places.sort();
            assert_eq!(places, ["/data", "/new"]);
            let volumes = volumes_of(&at, &name);
            let listed = at.ok(&format!("start -a {name}"));
            assert!(listed.contains("70") && listed.contains("71") && listed.contains("file"), "{listed}");
            at.ok(&format!("rm -v {name}"));
            assert!(volumes.iter().all(|volume| !exists(&at, volume)));
            // A mount of the user's takes the place, and where a file is there is no volume.
            at.ok(&format!("create --network none --name {name} -v mine:/data --tmpfs /new volumes /x"));
            assert_eq!(volumes_of(&at, &name), ["mine"]);
            at.ok(&format!("rm -v {name}"));
            at.ok("volume rm mine");
            let file = "cannot mount volume over existing file, file exists";
            at.fails(&format!("create --network none --name {name} -v /file volumes /x"), 1, file);
            at.fails(
                &format!("create --network none --name {name} -v mine:/file volumes /x"),
                1,
                "file is not directory",
            );
            assert_eq!(at.ok("volume ls -q"), "mine", "what came to nothing leaves only what was named");
            at.ok("volume rm mine");
        }
    });
}

#[test]
fn privileged_files_that_every_container_has_are_no_places_for_volumes() {
    on_both(|at| {
        let (name, data) = (at.name("c"), at.name("data"));
        for place in ["/etc/hosts", "/etc//./hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/console", "/.dockerenv"]
        {
            let file = place.replace("//./", "/");
            for (flag, sentence) in [
                (format!("-v {data}:{place}"), format!("{file} is not directory")),
                (format!("--mount type=volume,src={data},dst={place}"), format!("{file} is not directory")),
                (format!("-v {place}"), "cannot mount volume over existing file, file exists".to_owned()),
            ] {
                at.fails(&format!("create --network none --name {name} {flag} busybox true"), 1, &sentence);
            }
            // What is not filled is seen by the start alone.
            at.ok(&format!("create --network none --name {name} -v {data}:{place}:nocopy busybox true"));
            at.remove(&name);
        }
        at.ok(&format!("volume rm {data}"));
    });
}

#[test]
fn privileged_mounts_of_the_long_form_make_volumes_too() {
    on_both(|at| {
        let (name, data) = (at.name("c"), at.name("data"));
        at.ok(&format!(
            "create --network none --name {name} --mount type=volume,src={data},dst=/d,ro,volume-label=a=b --mount \
             dst=/anon busybox true"
        ));
        let volumes = volumes_of(at, &name);
        let anonymous = volumes.iter().find(|volume| **volume != data).unwrap();
        let mut shown: Vec<String> = at.inspect(&name, MOUNTS).split(';').map(str::to_owned).collect();
        shown.sort();
        let wanted = [
            String::new(),
            format!("volume {anonymous} /anon z true local"),
            format!("volume {data} /d z false local"),
        ];
        assert_eq!(BTreeSet::from_iter(shown), BTreeSet::from(wanted));
        assert_eq!(at.ok(&format!("volume inspect -f '{{{{json .Labels}}}}' {data}")), r#"{"a":"b"}"#);
        at.ok(&format!("rm -v {name}"));
        assert!(exists(at, &data) && !exists(at, anonymous));
        at.ok(&format!("volume rm {data}"));
        let refused = |mount: &str, sentence: &str| {
            at.fails(&format!("create --network none --mount {mount} busybox true"), 1, sentence);
        };
        let kind = "invalid mount config for type \"volume\": ";
        refused("dst=/d,ro", &format!("{kind}must not set ReadOnly mode when using anonymous volumes"));
        refused("dst=/d,volume-subpath=a", &format!("{kind}must not set Subpath when using anonymous volumes"));
        refused(
            "src=d1,dst=/d,volume-subpath=../a",
            &format!("{kind}subpath must be a relative path within the volume"),
        );
        refused("src=/abs,dst=/d", "create /abs: \"/abs\" includes invalid characters for a local volume name");
        refused("src=d1,dst=/d,volume-opt=a=b", "create d1: invalid option: \"a\"");
    });
}

#[test]
fn privileged_a_part_of_a_volume_can_be_mounted() {
    on_both(|at| {
        let (name, data) = (at.name("c"), at.name("data"));
        at.run(&format!(
            "-v {data}:/d busybox sh -c 'mkdir -p /d/a/b; echo part >/d/a/b/file; ln -s /etc /d/out; ln -s ../.. /d/a/up'"
        ));
        let part = |path: &str, rest: &str| format!("--mount src={data},dst=/p,volume-subpath={path} {rest}");
        assert_eq!(at.run(&part("a/b", "busybox cat /p/file")), "part");
        assert_eq!(at.run(&part("a/b/file", "busybox cat /p")), "part");
        // It is there at the creation or it is not: the start needs it.
        at.ok(&format!("create --network none --name {name} {}", part("a/none", "busybox true")));
        at.fails(&format!("start {name}"), 1, "no such file or directory");
        at.remove(&name);
        for path in ["out", "a/up"] {
            at.ok(&format!("create --network none --name {name} {}", part(path, "busybox true")));
            at.fails(&format!("start {name}"), 1, "path concatenation escapes the base directory");
            at.remove(&name);
        }
        at.ok(&format!("volume rm {data}"));
    });
}

#[test]
fn privileged_containers_share_the_mounts_of_others() {
    on_both(|at| {
        let (one, two, data) = (at.name("one"), at.name("two"), at.name("data"));
        at.ok(&format!("create --network none --name {one} -v {data}:/d -v /anon -v /tmp:/host busybox true"));
        let anonymous = volumes_of(at, &one).into_iter().find(|volume| *volume != data).unwrap();
        at.run(&format!("--volumes-from {one} busybox sh -c 'echo shared >/d/file; echo too >/anon/file'"));
        assert!(exists(at, &anonymous), "it is another's");
        assert_eq!(at.run(&format!("--volumes-from {one}:ro busybox cat /d/file /anon/file")), "shared\ntoo");
        at.fails(
            &format!("run --rm --network none --volumes-from {one}:ro busybox touch /d/file"),
            1,
            "Read-only file system",
        );
        at.ok(&format!("create --network none --name {two} --volumes-from {one}:ro -v /own:/host busybox true"));
        let shown = at.inspect(&two, "{{range .Mounts}}{{.Destination}} {{.Source}} {{.RW}};{{end}}");
        assert!(shown.contains("/host /own true;") && shown.contains("/d ") && !shown.contains(" /tmp "), "{shown}");
        at.ok(&format!("rm -v {one}"));
        assert!(exists(at, &anonymous), "{two} has it, too");
        at.ok(&format!("rm -v {two}"));
        assert!(exists(at, &data) && !exists(at, &anonymous));
        at.ok(&format!("volume rm {data}"));
        at.fails("create --volumes-from nope busybox true", 1, "No such container: nope");
        at.fails("create --volumes-from '' busybox true", 1, "volumes-from specification cannot be an empty string");
        at.fails("create --volumes-from nope:zz busybox true", 1, "invalid mode: zz");
    });
}

#[test]
fn privileged_volumes_are_listed_removed_and_pruned() {
    on_both(|at| {
        let (one, two) = (at.name("v10"), at.name("v9"));
        assert_eq!(at.ok(&format!("volume create --label {one}=front {one}")), one);
        assert_eq!(at.ok(&format!("volume create {two}")), two);
        // One that is there is answered as it is.
        assert_eq!(at.ok(&format!("volume create --label {one}=back {one}")), one);
        let mark = one.trim_start_matches("v10");
        let named = |filter: &str| at.ok(&format!("volume ls -q --filter name={mark} {filter}"));
        assert_eq!(named(""), format!("{two}\n{one}"));
        assert_eq!(named(&format!("--filter label={one}=front")), one);
        assert_eq!(named("--filter driver=other"), "");
        let table = at.ok(&format!("volume ls --filter name={one}"));
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["DRIVER", "VOLUME", "NAME"], vec!["local", one.as_str()]]);
        let json = at.ok(&format!("volume ls --filter name={one} --format json"));
        let start = r#"{"Availability":"N/A","Driver":"local","Group":"N/A","Labels":""#;
        assert!(json.starts_with(&format!("{start}{one}=front\",")), "{json}");

        let holder = at.name("holder");
        at.ok(&format!("create --network none --name {holder} -v {one}:/v busybox true"));
        assert_eq!(named("--filter dangling=true"), two);
        assert_eq!(named("--filter dangling=0"), one);
        assert_eq!(at.ok(&format!("ps -a --filter volume={one} --format '{{{{.Names}}}}'")), holder);
        assert_eq!(at.ok(&format!("ps -a --filter volume={two} --format '{{{{.Names}}}}'")), "");
        let id = at.inspect(&holder, "{{.Id}}");
        at.fails(&format!("volume rm -f {one}"), 1, &format!("remove {one}: volume is in use - [{id}]"));
        let pruned = at.ok(&format!("volume prune -af --filter label={one}"));
        assert_eq!(pruned, "Total reclaimed space: 0B", "it is in use");
        at.remove(&holder);

        let anonymous = at.ok("volume create");
        at.run(&format!("-v {anonymous}:/v busybox sh -c 'head -c 3000 /dev/zero >/v/file'"));
        if !at.daemon.is_foreign() {
            let pruned = at.ok("volume prune -f");
            assert!(
                pruned.starts_with(&format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: ")),
                "{pruned}"
            );
            assert!(pruned.ends_with("kB"), "{pruned}");
        } else {
            at.ok(&format!("volume rm {anonymous}"));
        }
        let output = at.line(&format!("volume rm {one} no-such-volume {two}"));
        assert_eq!((output.code, output.stdout), (1, format!("{one}\n{two}\n")));
        assert!(output.stderr.contains("get no-such-volume: no such volume"), "{}", output.stderr);
        at.fails("volume rm -f no-such-volume", 0, "");
        let asked = at.with_input("volume prune --filter label=none-has-it", b"n\n");
        assert_eq!(
            (asked.code, asked.stdout.as_str()),
            (
                0,
                "WARNING! This will remove anonymous local volumes not used by at least one container.\nAre you sure you \
                 want to continue? [y/N] "
            )
        );
        for (line, sentence) in [
            ("volume ls --filter foo=x", "invalid filter 'foo'"),
            ("volume ls --filter dangling=zzz", "invalid filter 'dangling=[zzz]'"),
            (
                "volume prune -f --filter all=zz",
                "invalid filter 'all': strconv.ParseBool: parsing \"zz\": invalid syntax",
            ),
            ("volume create -d foo x1", "create x1: error looking up volume plugin foo: plugin \"foo\" not found"),
            ("volume create x", "volume name is too short, names should be at least two alphanumeric characters"),
            ("volume prune -af --filter all=1", "conflicting options: cannot specify both --all and --filter all=1"),
        ] {
            at.fails(line, 1, sentence);
        }
    });
}

#[test]
fn privileged_wrong_volumes_are_refused_in_dockers_words() {
    on_both(|at| {
        for (volumes, code, sentence) in [
            ("-v :/x", 125, "invalid spec: :/x: empty section between colons"),
            ("-v a1:/x:ro:z", 125, "invalid spec: a1:/x:ro:z: too many colons"),
            ("-v a1:/x -v a2:/x", 1, "Duplicate mount point: /x"),
            ("-v a1:/x:copy", 1, "invalid mode: copy"),
            ("-v 'a b:/x'", 1, "create a b: \"a b\" includes invalid characters for a local volume name"),
            ("-v a1:rel", 1, "invalid mount path: 'rel' mount path must be absolute"),
            ("-v a1:/x:rprivate", 1, "field BindOptions must not be specified"),
        ] {
            at.fails(&format!("create {volumes} busybox true"), code, sentence);
        }
        // With Docker the first was made before the second was looked at; not with us.
        at.line("volume rm -f a1 a2");
    });
}

#[test]
fn privileged_volumes_are_told_of() {
    on_both(|at| {
        let (name, data) = (at.name("c"), at.name("data"));
        let mut events = Events::subscribe_to(at.daemon.socket(), "volume", &data).unwrap();
        at.ok(&format!("run --network none --name {name} -v {data}:/d:ro busybox true"));
        let created = events.next_event().unwrap();
        assert_eq!(
            (created["Action"].as_str(), &created["Actor"]["Attributes"]["driver"]),
            (Some("create"), &"local".into())
        );
        let mounted = events.next_event().unwrap();
        let id = at.inspect(&name, "{{.Id}}");
        assert_eq!(mounted["Action"], "mount");
        let attributes = serde_json::json!({"container": id, "destination": "/d", "driver": "local", "propagation": "",
            "read/write": "false"});
        assert_eq!(mounted["Actor"]["Attributes"], attributes);
        let unmounted = events.next_event().unwrap();
        assert_eq!(unmounted["Action"], "unmount");
        assert_eq!(unmounted["Actor"]["Attributes"], serde_json::json!({"container": id, "driver": "local"}));
        at.remove(&name);
        at.ok(&format!("volume rm {data}"));
        assert_eq!(events.until("destroy").unwrap()["Actor"]["ID"], data.as_str());
    });
}

#[test]
fn privileged_the_api_tells_of_volumes_in_dockers_json() {
    on_both(|at| {
        let name = at.name("json");
        let create = |body: &str| at.daemon.post("/v1.51/volumes/create", body).unwrap();
        let made = create(&format!(r#"{{"Name":"{name}","Labels":{{}},"DriverOpts":{{}}}}"#));
        assert_eq!(made.status, 201);
        let text = made.text();
        assert!(
            text.starts_with(r#"{"CreatedAt":"2"#)
                && text.contains(r#"Z","Driver":"local","Labels":{},"Mountpoint":"/"#),
            "{text}"
        );
        assert!(
            text.trim_end().ends_with(&format!(r#"/{name}/_data","Name":"{name}","Options":{{}},"Scope":"local"}}"#)),
            "{text}"
        );
        assert_eq!(at.daemon.get(&format!("/v1.51/volumes/{name}")).unwrap().text(), text);
        let listed = at.daemon.get(&format!("/v1.51/volumes?filters=%7B%22name%22%3A%5B%22{name}%22%5D%7D")).unwrap();
        assert_eq!(listed.text().trim_end(), format!(r#"{{"Volumes":[{}],"Warnings":null}}"#, text.trim_end()));
        at.ok(&format!("volume rm {name}"));
        for (body, status, message) in [
            (
                r#"{"Name":"x1","Driver":"foo"}"#,
                404,
                "create x1: error looking up volume plugin foo: plugin \"foo\" not found",
            ),
            (
                r#"{"Name":5}"#,
                400,
                "invalid JSON: json: cannot unmarshal number into Go struct field CreateOptions.Name of type string",
            ),
        ] {
            let refused = create(body);
            assert_eq!(refused.status, status, "{body}");
            assert_eq!(refused.json().unwrap()["message"], message);
        }
        let missing = at.daemon.get("/v1.51/volumes/").unwrap();
        assert_eq!((missing.status, missing.json().unwrap()["message"].as_str()), (404, Some("get: no such volume")));
        let wrong = at.daemon.get("/v1.51/volumes?filters=x").unwrap();
        assert_eq!(wrong.json().unwrap()["message"], "error reading volume filters: invalid filter");
        // Until 1.42 a prune took named volumes, too.
        let none = "%7B%22label%22%3A%7B%22nobody-has-it%22%3Atrue%7D%7D";
        for version in ["1.41", "1.42"] {
            let pruned = at.daemon.post(&format!("/v{version}/volumes/prune?filters={none}"), "").unwrap();
            assert_eq!(pruned.text().trim_end(), r#"{"VolumesDeleted":[],"SpaceReclaimed":0}"#);
        }
    });
}

#[test]
fn privileged_volumes_are_known_to_the_next_daemon() {
    ours(|daemon| {
        let cli = testkit::Cli::Longshore;
        let (volume, id) = {
            let at = At { daemon, cli };
            at.ok("create --network none --name holder -v named:/d -v /anon busybox true");
            at.ok("volume create --label a=b idle");
            let volume = volumes_of(&at, "holder").into_iter().find(|volume| volume != "named").unwrap();
            (volume, at.inspect("holder", "{{.Id}}"))
        };
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli };
        assert_eq!(at.ok("volume inspect -f '{{json .Labels}}' idle"), r#"{"a":"b"}"#);
        for name in ["named", &volume] {
            at.fails(&format!("volume rm {name}"), 1, &format!("remove {name}: volume is in use - [{id}]"));
        }
        assert_eq!(at.ok("volume prune -af"), "Deleted Volumes:\nidle\n\nTotal reclaimed space: 0B");
        at.ok("rm -v holder");
        assert_eq!(at.ok("volume ls -q"), "named");
        at.ok("volume rm named");
    });
}

#[test]
fn privileged_a_shared_volume_goes_with_the_container_that_it_was_made_for() {
    ours(|daemon| {
        let root = daemon.scratch().data_root().join("volumes");
        let owner = |volume: &str| {
            let record = std::fs::read(root.join(volume).join("volume.json")).unwrap();
            serde_json::from_slice::<serde_json::Value>(&record).unwrap()["owner"].as_str().map(str::to_owned)
        };
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("create --network none --name one -v /anon busybox true");
        at.ok("create --network none --name two --volumes-from one busybox true");
        at.ok("create --network none --name three --volumes-from one busybox true");
        let (volume, id) = (volume_of(&at, "one"), at.inspect("one", "{{.Id}}"));
        at.ok("rm two");
        assert_eq!(owner(&volume), Some(id), "it was only lent");
        at.ok("rm -v one");
        at.ok("rm three");
        assert_eq!(owner(&volume), None, "it was left to whoever wants it, also after the next start");
        at.ok(&format!("volume rm {volume}"));
    });
}

/// How often the daemon is killed, in the long test and in the quick one.
const ROUNDS: [usize; 2] = [200, 25];

/// What is cut; each line is typed after those before it have ended.
const CUT: [&str; 4] = [
    "create --network none -v /anon -v named:/etc --name victim busybox true",
    "rm -v victim",
    "run --rm --network none -v /anon -v /etc --name victim busybox true",
    "rm victim",
];

#[test]
fn privileged_quick_a_killed_daemon_leaves_no_volume_without_a_container() {
    ours(|daemon| kills(daemon, ROUNDS[1]));
}

#[test]
fn privileged_slow_a_killed_daemon_leaves_no_volume_without_a_container() {
    ours(|daemon| kills(daemon, ROUNDS[0]));
}

fn kills(daemon: &mut Daemon, rounds: usize) {
    let mut chance = Mutator::new(u64::from(std::process::id()));
    At { daemon, cli: Cli::Longshore }.ok(CUT[0]);
    At { daemon, cli: Cli::Longshore }.ok(CUT[1]);
    for round in 0..rounds {
        let line = CUT[chance.below(CUT.len())];
        let delay = Duration::from_micros(chance.below(30_000) as u64);
        println!("round {round}, killed after {delay:?}:");
        cut(daemon, line, delay);
        check_owned(daemon);
    }
    let at = At { daemon, cli: Cli::Longshore };
    at.line("rm -fv victim");
    // Of containers that were removed without them.
    at.ok("volume prune -af");
    assert_eq!(at.ok("volume ls -q"), "");
    let root = daemon.scratch().data_root().join("volumes");
    let swept = || std::fs::read_dir(&root).unwrap().next().is_none().then_some(());
    until("the directory of volumes is empty", DEADLINE, swept).unwrap();
}

/// Types `line`, kills the daemon after `delay`, and starts the next one.
fn cut(daemon: &mut Daemon, line: &str, delay: Duration) {
    let at = At { daemon, cli: Cli::Longshore };
    // `rm` needs one to remove.
    if line.starts_with("rm") {
        at.line(CUT[0]);
    } else {
        at.line(CUT[1]);
    }
    let typed = at.spawn(line);
    // The kill is to fall anywhere: there is no fact to wait for.
    std::thread::sleep(delay);
    daemon.kill9().unwrap();
    drop(typed);
    daemon.restart().unwrap();
}

/// Every volume that has an owner has one that exists, and every container has its volumes.
fn check_owned(daemon: &Daemon) {
    let at = At { daemon, cli: Cli::Longshore };
    let listed: BTreeSet<String> = at.ok("volume ls -q").lines().map(str::to_owned).collect();
    let root = daemon.scratch().data_root();
    for volume in &listed {
        let record = std::fs::read(root.join("volumes").join(volume).join("volume.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        if let Some(owner) = record["owner"].as_str() {
            assert!(root.join("containers").join(owner).exists(), "{volume} has an owner that does not exist");
        }
    }
    if daemon.get("/containers/victim/json").unwrap().status == 200 {
        let missing: Vec<String> =
            volumes_of(&at, "victim").into_iter().filter(|name| !listed.contains(name)).collect();
        assert!(missing.is_empty(), "the container has lost {missing:?}");
    }
}
