//! What everything takes on disk, what prunes free, and the networks that are always there.

use std::path::Path;

use serde_json::Value;
use testkit::Cli;
use testkit::process::{DEADLINE, run, until};
use testkit::registry::Debian;

use crate::support::{At, on_both, ours};

/// What du says of the files below `path`, hard links once, directories not counted.
fn du(path: &Path) -> i64 {
    let script = format!(
        "find {} ! -type d -printf '%i %s\\n' | sort -u | awk '{{s += $2}} END {{print s + 0}}'",
        path.display()
    );
    run(std::process::Command::new("sh").args(["-c", &script]), b"").unwrap().stdout.trim().parse().unwrap()
}

fn usage(at: &At<'_>, query: &str) -> Value {
    at.daemon.get(&format!("/v1.51/system/df{query}")).unwrap().json().unwrap()
}

fn find<'a>(list: &'a Value, key: &str, value: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|one| one[key].as_str().is_some_and(|found| found == value))
}

#[test]
fn privileged_df_says_what_du_says() {
    on_both(|at| {
        let (name, data) = (at.name("user"), at.name("data"));
        let fill = "dd if=/dev/zero of=/own bs=1000 count=7; cd /d; echo five >a; ln a b; mkdir c; dd if=/dev/zero of=c/e bs=1 count=300";
        at.ok(&format!("run --network none --name {name} -v {data}:/d busybox sh -c '{fill}'"));
        let told = usage(at, "");
        let volume = find(&told["Volumes"], "Name", &data).unwrap();
        let mountpoint = at.ok(&format!("volume inspect -f {{{{.Mountpoint}}}} {data}"));
        assert_eq!(volume["UsageData"]["Size"], du(Path::new(&mountpoint)));
        assert_eq!((&volume["UsageData"]["Size"], &volume["UsageData"]["RefCount"]), (&305.into(), &1.into()));
        let containers = told["Containers"].as_array().unwrap();
        let container = containers.iter().find(|one| one["Names"][0] == format!("/{name}")).unwrap();
        assert_eq!(container["SizeRw"], 7000);
        let images = told["Images"].as_array().unwrap();
        let image = images.iter().find(|one| one["RepoTags"].to_string().contains("\"busybox:latest\"")).unwrap();
        let unpacked: i64 = at.ok("image inspect -f '{{.Size}}' busybox").parse().unwrap();
        assert_eq!(container["SizeRootFs"].as_i64().unwrap(), 7000 + unpacked);
        assert!(image["Containers"].as_i64().unwrap() > 0, "{image}");
        assert_eq!(told["BuildCache"], Value::Array(vec![]));
        let table = at.ok("system df -v");
        assert!(table.contains(&format!("{data} ")) && table.contains("305B"), "{table}");
        assert_eq!(at.ok(&format!("system df -v --format '{{{{range .Volumes}}}}{{{{if eq .Name \"{data}\"}}}}{{{{.Links}}}} {{{{.Size}}}}{{{{end}}}}{{{{end}}}}'")), "1 305B");
        at.remove(&name);
        assert_eq!(find(&usage(at, "?type=volume")["Volumes"], "Name", &data).unwrap()["UsageData"]["RefCount"], 0);
        at.ok(&format!("volume rm {data}"));
    });
}

#[test]
fn privileged_layers_take_what_du_says_and_are_counted_once() {
    ours(|daemon| {
        crate::support::each(daemon, |at| {
            let (name, image) = (at.name("made"), at.image("child"));
            at.ok(&format!("run --network none --name {name} busybox dd if=/dev/zero of=/own bs=1000 count=9"));
            at.ok(&format!("commit {name} {image}"));
            at.remove(&name);
            let told = usage(at, "?type=image");
            let child = told["Images"].as_array().unwrap().iter();
            let child = child.clone().find(|one| one["RepoTags"][0] == format!("{image}:latest")).unwrap().clone();
            let own: i64 = at
                .ok(&format!("history --human=false --format '{{{{.Size}}}}' {image}"))
                .lines()
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(own, 9000);
            // And its configuration and what gives its layer's tar back, which nobody else has.
            assert!(child["Size"].as_i64().unwrap() - child["SharedSize"].as_i64().unwrap() > own, "{child}");
            let below = |part: &str| du(&at.daemon.scratch().data_root().join(part));
            // With the layers what is kept beside them: above all, what gives their very tars back.
            let on_disk = || below("snapshots/l") + below("content");
            assert!(below("content") > 0);
            let layers = on_disk();
            assert_eq!(told["LayersSize"], layers);
            assert_eq!(told["Containers"], Value::Null);
            // A container keeps the layers of an image that is removed by force.
            at.ok(&format!("create --name {name} {image}"));
            at.ok(&format!("rmi -f {image}"));
            assert_eq!(usage(at, "?type=image")["LayersSize"], on_disk());
            let before = below("snapshots/l");
            at.remove(&name);
            // With the last container the layer goes, too.
            let gone = || (below("snapshots/l") == before - 9000).then_some(());
            until("the end of the layer", DEADLINE, gone).unwrap();
            assert_eq!(usage(at, "?type=image")["LayersSize"], on_disk());
        });
    });
}

#[test]
fn privileged_what_images_in_use_have_beside_their_layers_is_not_to_be_freed() {
    ours(|daemon| {
        let at = &At { daemon, cli: Cli::Longshore };
        // Pulled: its compressed layer or the recipe of that is kept.
        let registry = Debian::start().unwrap();
        let (pulled, made) = (format!("{}/kept", registry.host()), at.image("made"));
        at.ok(&format!("tag busybox {pulled}"));
        at.ok(&format!("push -q {pulled}"));
        at.ok(&format!("rmi busybox {pulled}"));
        at.ok(&format!("pull -q {pulled}"));
        let row = || at.ok("system df --format '{{if eq .Type \"Images\"}}{{.Reclaimable}}{{end}}'").trim().to_owned();
        let total = usage(at, "")["LayersSize"].as_i64().unwrap();
        let unpacked: i64 = at.inspect(&pulled, "{{.Size}}").parse().unwrap();
        assert!(total > unpacked, "{total} {unpacked}");
        let free = || {
            let told = usage(at, "");
            let images = told["Images"].as_array().unwrap().iter().filter(|image| image["Containers"] != 0);
            let used = images.map(|image| image["Size"].as_i64().unwrap() - image["SharedSize"].as_i64().unwrap());
            told["LayersSize"].as_i64().unwrap() - used.sum::<i64>()
        };
        assert_eq!(free(), total);
        at.ok(&format!("create --name user {pulled}"));
        assert_eq!((free(), row()), (0, "0B (0%)".to_owned()));
        // What two have is no one's own; the layer below is counted so by Docker, too.
        at.ok(&format!("commit -c 'LABEL a=b' user {made}"));
        let images = usage(at, "")["Images"].as_array().unwrap().clone();
        let size = |key: &str| images.iter().map(|image| image[key].as_i64().unwrap()).collect::<Vec<_>>();
        assert!(size("SharedSize").iter().all(|shared| *shared >= unpacked), "{images:?}");
        assert!(size("Size").iter().zip(size("SharedSize")).all(|(size, shared)| *size > shared), "{images:?}");
        at.ok(&format!("rmi {made}"));
        assert_eq!(free(), 0);
        at.remove("user");
        assert_eq!(free(), usage(at, "")["LayersSize"].as_i64().unwrap());
        at.ok("image prune -af");
        assert_eq!(usage(at, "")["LayersSize"], 0);
    });
}

#[test]
fn privileged_df_has_dockers_columns() {
    on_both(|at| {
        let table = at.ok("system df");
        let titles: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(titles, ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
        let kinds: Vec<&str> = table.lines().skip(1).map(|line| line[..14].trim_end()).collect();
        assert_eq!(
            kinds,
            ["Images", "Containers", "Local Volumes", "Build Cache"].map(|kind| kind.get(..14).unwrap_or(kind))
        );
        assert!(at.ok("system df --format json").starts_with("{\"Active\":\""));
        assert!(at.ok("system df --format '{{.Type}}'").starts_with("Images\nContainers\nLocal Volumes\nBuild Cache"));
        at.fails("system df --format '{{.Zz}}'", 1, "template parsing error: template: :1:2: executing \"\" at <.Zz>: can't evaluate field Zz in type *formatter.diskUsageImagesContext");
        let details = at.ok("system df -v");
        for title in
            ["Images space usage:", "Containers space usage:", "Local Volumes space usage:", "Build cache usage: 0B"]
        {
            assert!(details.contains(&format!("{title}\n\n")), "{details}");
        }
        let json: Value = serde_json::from_str(&at.ok("system df -v --format json")).unwrap();
        assert_eq!(json["BuildCache"], Value::Array(vec![]));
    });
}

#[test]
fn privileged_prunes_say_what_goes() {
    on_both(|at| {
        let (name, image) = (at.name("made"), at.image("pruned"));
        at.ok(&format!("run --network none --name {name} busybox sh -c 'echo {name} >/own'"));
        let id = at.ok(&format!("commit -c 'LABEL kind={image}' {name}"));
        at.remove(&name);
        let asked = at.with_input("image prune", b"n\n");
        assert_eq!(asked.code, 0);
        assert_eq!(
            asked.stdout,
            "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] "
        );
        // What a container has stays.
        at.ok(&format!("create --name {name} {id}"));
        assert_eq!(at.ok(&format!("image prune -f --filter label=kind={image}")), "Total reclaimed space: 0B");
        at.remove(&name);
        assert_eq!(
            at.ok(&format!("image prune -f --filter label=kind={image} --filter until=1h")),
            "Total reclaimed space: 0B"
        );
        let gone = at.ok(&format!("image prune -f --filter label=kind={image}"));
        let length = format!("{name}\n").len();
        assert!(gone.starts_with(&format!("Deleted Images:\ndeleted: {id}\ndeleted: sha256:")), "{gone}");
        assert!(gone.ends_with(&format!("\n\nTotal reclaimed space: {length}B")), "{gone}");
        // A tagged one goes with all others that no container has.
        at.ok(&format!("create --name {name} busybox"));
        at.ok(&format!("commit -c 'LABEL kind={image}' {name} {image}:a"));
        at.ok(&format!("tag {image}:a {image}:b"));
        assert_eq!(at.ok(&format!("image prune -f --filter label=kind={image}")), "Total reclaimed space: 0B");
        let gone = at.ok(&format!("system prune -a -f --filter label=kind={image}"));
        assert!(
            gone.contains(&format!("untagged: {image}:a\n")) && gone.contains(&format!("untagged: {image}:b\n")),
            "{gone}"
        );
        at.remove(&name);
    });
}

#[test]
fn privileged_system_prune_asks_and_names_everything() {
    on_both(|at| {
        let asked = at.with_input("system prune -a --volumes --filter label=none-has-it", b"n\n");
        assert_eq!(asked.code, 0);
        let expected = "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n  \
            - all anonymous volumes not used by at least one container\n  \
            - all images without at least one container associated to them\n  - all build cache\n\n  \
            Items to be pruned will be filtered with:\n  - label=none-has-it\n\nAre you sure you want to continue? [y/N] ";
        assert_eq!(asked.stdout, expected);
        at.fails(
            "system prune --volumes --filter until=1h",
            1,
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        );
        let (name, image) = (at.name("ended"), at.image("label"));
        at.ok(&format!("run --network none --label kind={image} --name {name} busybox sh -c 'echo 1234 >/own'"));
        let gone = at.ok(&format!("system prune -f --filter label=kind={image}"));
        assert!(gone.starts_with("Deleted Containers:\n") && gone.ends_with("\n\nTotal reclaimed space: 5B"), "{gone}");
        assert_eq!(at.ok("builder prune -f"), "Total reclaimed space: 0B");
        assert_eq!(at.ok("network prune -f --filter label=none-has-it"), "");
        at.fails("image prune -f --filter foo=x", 1, "Error response from daemon: invalid filter 'foo'");
        at.fails("image prune -f --filter until=x", 1, "failed to parse value as time or duration: \"x\"");
    });
}

#[test]
fn privileged_a_prune_of_builds_takes_what_its_filters_say() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = testkit::Daemon::with_busybox().unwrap();
    if daemon.is_foreign() {
        return testkit::skip::report("others may build there");
    }
    let at = At { daemon: &daemon, cli: Cli::Longshore };
    let directory = crate::build::context(&[("Dockerfile", "FROM busybox\nRUN echo one\nRUN echo two\n")]);
    let mut command = daemon.command(at.cli).unwrap();
    command.env("DOCKER_BUILDKIT", "0").args(["build", "-t", "pruned"]).arg(directory.path());
    assert_eq!(run(&mut command, b"").unwrap().code, 0);
    // What an image has that somebody named is shared.
    at.ok("rmi pruned");
    let described = || -> Vec<String> {
        let told = usage(&at, "?type=build-cache");
        let all = told["BuildCache"].as_array().unwrap();
        all.iter().map(|record| record["Description"].as_str().unwrap().to_owned()).collect()
    };
    let before = described();
    assert_eq!(before.len(), 2, "{before:?}");
    let prune = |filters: &str| {
        let filters: String = filters.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = daemon.post(&format!("/v1.51/build/prune?all=1&filters={filters}"), "").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.message());
        answer.json().unwrap()["CachesDeleted"].as_array().map_or(0, Vec::len)
    };
    for filters in [r#"{"shared":["true"]}"#, r#"{"inuse":["true"]}"#, r#"{"private":["true"]}"#, r#"{"shared":[]}"#] {
        assert_eq!((prune(filters), described()), (0, before.clone()), "{filters}");
    }
    assert_eq!(prune(&format!(r#"{{"description":[{:?}]}}"#, before[0])), 1);
    assert_eq!(described(), before[1..]);
    assert_eq!(prune(r#"{"private":[]}"#), 1);
}

#[test]
fn privileged_requests_are_refused_in_dockers_words() {
    on_both(|at| {
        for (method, path, status, message) in [
            ("GET", "/v1.51/system/df?type=zz", 400, "unknown object type: zz"),
            ("POST", "/v1.51/images/prune?filters={%22dangling%22:[%22x%22]}", 400, "invalid filter 'dangling=[x]'"),
            (
                "POST",
                "/v1.51/build/prune?keep-storage=x",
                400,
                "keep-storage is in bytes and expects an integer, got x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (
                "POST",
                "/v1.51/build/prune?filters={%22zz%22:[%22x%22]}",
                400,
                "failed to prune build cache: invalid filter 'zz'",
            ),
            (
                "POST",
                "/v1.51/build/prune?filters={%22id%22:[%22x%22,%22y%22]}",
                400,
                "failed to prune build cache: filters expect only one value",
            ),
            (
                "POST",
                "/v1.51/networks/prune?filters={%22until%22:[%22x%22]}",
                400,
                "failed to parse value as time or duration: \"x\"",
            ),
            ("GET", "/v1.51/networks?filters={%22type%22:[%22x%22]}", 500, "invalid filter: 'type'='x'"),
            ("GET", "/v1.51/networks/zz", 404, "network zz not found"),
            ("GET", "/v1.51/networks/bridge?scope=x", 404, "network bridge not found"),
        ] {
            let answer = match method {
                "GET" => at.daemon.get(path),
                _ => at.daemon.post(path, ""),
            };
            let answer = answer.unwrap();
            assert_eq!((answer.status, answer.message().as_str()), (status, message), "{path}");
        }
        for (path, body) in [
            ("/v1.51/build/prune", "{\"CachesDeleted\":null,\"SpaceReclaimed\":0}"),
            ("/v1.51/networks/prune?filters={%22label%22:[%22none-has-it%22]}", "{\"NetworksDeleted\":null}"),
            (
                "/v1.51/images/prune?filters={%22label%22:[%22none-has-it%22]}",
                "{\"ImagesDeleted\":null,\"SpaceReclaimed\":0}",
            ),
        ] {
            let answer = at.daemon.post(path, "").unwrap();
            assert_eq!((answer.status, String::from_utf8_lossy(&answer.body).trim()), (200, body), "{path}");
        }
    });
}

#[test]
fn privileged_the_three_networks_are_there() {
    on_both(|at| {
        let names = at.ok("network ls --filter type=builtin --format '{{.Name}} {{.Driver}} {{.Scope}} {{.IPv6}}'");
        assert_eq!(names, "bridge bridge local false\nhost host local false\nnone null local false");
        assert_eq!(at.ok("network ls -q --filter name=^none$").len(), 12);
        assert_eq!(at.ok("network ls -q --filter dangling=true --filter type=builtin"), "");
        let id = at.ok("network inspect -f '{{.Id}}' bridge");
        assert_eq!(at.ok(&format!("network inspect -f '{{{{.Name}}}}' {}", &id[..12])), "bridge");
        let name = at.name("member");
        at.ok(&format!("run -d --name {name} busybox sleep 1000"));
        let address = at.inspect(&name, "{{.NetworkSettings.IPAddress}}/{{.NetworkSettings.IPPrefixLen}}");
        let members = at.ok("network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}};{{end}}' bridge");
        assert!(members.contains(&format!("{name} {address};")), "{members}");
        at.remove(&name);
        let options = at.ok("network inspect -f '{{json .Options}}' bridge");
        for option in [
            "default_bridge\":\"true",
            "enable_icc\":\"true",
            "host_binding_ipv4\":\"0.0.0.0",
            "network.driver.mtu\":\"",
        ] {
            assert!(options.contains(option), "{options}");
        }
        at.fails("network inspect no-such-net", 1, "network no-such-net not found");
    });
}

#[test]
fn privileged_networks_and_prunes_are_told() {
    on_both(|at| {
        for (network, kind) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
            let name = at.name(&format!("on-{network}"));
            let mut events = testkit::Events::subscribe_to(at.daemon.socket(), "network", network).unwrap();
            at.ok(&format!("run --network {network} --name {name} busybox true"));
            let id = at.inspect(&name, "{{.Id}}");
            for action in ["connect", "disconnect"] {
                let event = loop {
                    let event = events.until(action).unwrap();
                    if event["Actor"]["Attributes"]["container"] == id.as_str() {
                        break event;
                    }
                };
                assert_eq!(event["Type"], "network");
                assert_eq!(event["Actor"]["ID"], at.ok(&format!("network inspect -f {{{{.Id}}}} {network}")));
                assert_eq!(event["Actor"]["Attributes"]["name"], network);
                assert_eq!(event["Actor"]["Attributes"]["type"], kind);
                assert!(event.get("status").is_none() && event.get("id").is_none(), "{event}");
            }
            at.remove(&name);
        }
        let mut events = testkit::Events::subscribe(at.daemon.socket(), "").unwrap();
        at.ok("system prune -f --volumes --filter label=none-has-it");
        for kind in ["container", "network", "volume", "image", "builder"] {
            let event = loop {
                let event = events.until("prune").unwrap();
                if event["Type"] == kind {
                    break event;
                }
            };
            assert_eq!(event["Actor"], serde_json::json!({"ID": "", "Attributes": {"reclaimed": "0"}}), "{kind}");
        }
    });
}
