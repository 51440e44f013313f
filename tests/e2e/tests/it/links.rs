//! `--link` on the default bridge.

use std::time::Duration;

use testkit::Cli;

use crate::support::{At, on_both, ours};

fn address(at: &At<'_>, name: &str) -> String {
    at.inspect(name, "{{.NetworkSettings.IPAddress}}")
}

fn words<'a>(text: &'a str, begins: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(begins)).collect()
}

#[test]
fn privileged_linked_containers_are_found_by_name_and_by_variables() {
    on_both(|at| {
        let (db, web) = (at.name("db"), at.name("web"));
        at.ok(&format!("run -d --name {db} -h dbhost --expose 80 --expose 81 -e FOO=bar busybox sleep 1000"));
        at.ok(&format!("run -d --name {web} --link {db}:al --link {db} busybox sleep 1000"));
        let ip = address(at, &db);
        let hosts = at.ok(&format!("exec {web} cat /etc/hosts"));
        for line in [format!("{ip}\tal dbhost {db}\n"), format!("{ip}\t{db} dbhost\n")] {
            assert!(hosts.contains(&line), "{line:?}: {hosts}");
        }
        let variables = at.ok(&format!("exec {web} env"));
        let expected = [
            format!("AL_PORT=tcp://{ip}:80"),
            format!("AL_PORT_80_TCP=tcp://{ip}:80"),
            format!("AL_PORT_80_TCP_ADDR={ip}"),
            "AL_PORT_80_TCP_PORT=80".to_owned(),
            "AL_PORT_80_TCP_PROTO=tcp".to_owned(),
        ];
        assert_eq!(words(&variables, "AL_")[..5], expected);
        assert!(variables.contains(&format!("AL_NAME=/{web}/al\nAL_ENV_FOO=bar")), "{variables}");
        assert!(variables.contains("AL_PORT_80_TCP_PORT_END=81"), "{variables}");
        let links = at.inspect(&web, "{{join .HostConfig.Links \" \"}}");
        let mut links: Vec<&str> = links.split(' ').collect();
        links.sort_unstable();
        let mut shown = [format!("/{db}:/{web}/al"), format!("/{db}:/{web}/{db}")];
        shown.sort();
        assert_eq!(links, shown);
        assert_eq!(at.inspect(&format!("{web}/al"), "{{.Name}}"), format!("/{db}"));
        let names = at.ok(&format!("ps --no-trunc --filter name={db} --format {{{{.Names}}}}"));
        assert_eq!(names, format!("{db},{web}/al,{web}/{db}"));
        assert_eq!(at.ok(&format!("ps --filter name={db} --format {{{{.Names}}}}")), db);
        for name in [web, db] {
            at.remove(&name);
        }
    });
}

#[test]
fn privileged_links_follow_renames_and_restarts() {
    on_both(|at| {
        let (db, web, other) = (at.name("db"), at.name("web"), at.name("other"));
        at.ok(&format!("run -d --name {db} busybox sleep 1000"));
        at.ok(&format!("run -d --name {web} --link {db}:al busybox sleep 1000"));
        let before = address(at, &db);
        at.ok(&format!("stop -t 0 {db}"));
        at.fails(
            &format!("exec {web} true"),
            1,
            &format!("Cannot link to a non running container: /{db} AS /{web}/al"),
        );
        // Somebody else has the address now.
        at.ok(&format!("run -d --name {other} busybox sleep 1000"));
        at.ok(&format!("run -d --name {other}2 busybox sleep 1000"));
        at.ok(&format!("start {db}"));
        let after = address(at, &db);
        assert_ne!(before, after);
        let hosts = at.ok(&format!("exec {web} cat /etc/hosts"));
        assert!(hosts.contains(&format!("{after}\tal ")) && !hosts.contains(&format!("{before}\tal ")), "{hosts}");
        at.ok(&format!("rename {db} {db}2"));
        assert_eq!(at.inspect(&web, "{{json .HostConfig.Links}}"), format!("[\"/{db}2:/{web}/al\"]"));
        at.fails(&format!("rm --link {web}"), 1, "Conflict, cannot remove the default link name of the container");
        at.ok(&format!("rm --link {web}/al"));
        assert_eq!(at.inspect(&web, "{{json .HostConfig.Links}}"), "null");
        let hosts = at.ok(&format!("exec {web} cat /etc/hosts"));
        assert!(!hosts.contains("\tal "), "{hosts}");
        for name in [&web, &format!("{db}2"), &other, &format!("{other}2")] {
            at.remove(name);
        }
    });
}

#[test]
fn privileged_links_are_refused_in_dockers_words() {
    on_both(|at| {
        let db = at.name("db");
        at.ok(&format!("create --name {db} busybox sleep 1000"));
        for (flags, sentence) in [
            ("--link nosuch", "could not get container for nosuch: No such container: nosuch"),
            ("--link a:b:c", "bad format for links: a:b:c"),
            (
                "--network host --link a",
                "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
            ),
            (
                "--network container:x --link a",
                "conflicting options: container type network can't be used with links. This would result in undefined behavior",
            ),
        ] {
            at.fails(&format!("run --rm {flags} busybox true"), 125, sentence);
        }
        let web = at.name("web");
        let sentence = format!("Cannot link to a non running container: /{db} AS /{web}/al");
        at.fails(&format!("run --name {web} --link {db}:al busybox true"), 125, &sentence);
        at.remove(&web);
        at.remove(&db);
    });
}

#[test]
fn privileged_a_link_opens_ports_between_strangers() {
    ours(|daemon| {
        daemon.scratch().write("daemon.json", r#"{"icc":false}"#).unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        let server = "sh -c 'nc -ll -p 81 -e echo hidden & exec nc -ll -p 80 -e echo hello'";
        at.ok(&format!("run -d --name db --expose 80 busybox {server}"));
        at.ok("run -d --name web --link db:al busybox sleep 1000");
        at.ok("run -d --name other busybox sleep 1000");
        let ip = address(&at, "db");
        let hears = |who: &str, port: u16| at.line(&format!("exec {who} nc -w 1 {ip} {port}")).stdout.contains("hello");
        testkit::process::until("an answer", Duration::from_secs(20), || hears("web", 80).then_some(())).unwrap();
        assert!(!hears("other", 80) && !hears("web", 81));
        at.ok("rm --link web/al");
        assert!(!hears("web", 80));
    });
}
