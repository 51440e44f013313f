//! `version`, `info`, `events`.

use std::fs;
use std::time::SystemTime;

use serde_json::Value;
use testkit::Cli;
use testkit::images::Archive;

use crate::support::{At, on_both, ours};

/// Now as the API takes it: seconds since 1970, with a fraction.
fn now() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|err| panic!("{err}: {text}"))
}

#[test]
fn privileged_version_shows_client_and_server() {
    ours(|daemon| {
        let product = env!("CARGO_PKG_VERSION");
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            assert_eq!(at.ok("version -f '{{.Server.Version}} {{.Server.APIVersion}}'"), format!("{product} 1.51"));
            assert_eq!(at.ok("version -f '{{.Server.Os}}/{{.Server.MinAPIVersion}}'"), "linux/1.24");
            let whole = json(&at.ok("version -f json"));
            let components = whole["Server"]["Components"].as_array().unwrap();
            assert_eq!(components[0]["Name"], "Engine");
            if !at.daemon.is_foreign() {
                let named = |one: &serde_json::Value| one["Name"].as_str().unwrap().to_owned();
                let programs: Vec<String> = components[1..].iter().map(named).collect();
                assert_eq!(programs, ["longshore-shim", "longshore-runtime", "longshore-init"]);
                assert!(components.iter().all(|one| one["Version"] == env!("CARGO_PKG_VERSION")), "{components:?}");
            }
            assert_eq!(
                whole["Server"]["KernelVersion"],
                fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim()
            );
            assert_eq!(whole["Client"]["Os"], "linux");
            let shown = at.ok("version");
            let [client, server] = ["Client:", "Server:"].map(|title| shown.find(title).unwrap());
            assert!(client < server && shown[server..].contains(product), "{shown}");
            at.fails("version -f '{{.Nope'", 64, "template parsing error: template: ");
        }
    });
}

#[test]
fn privileged_version_shows_the_client_even_without_a_daemon() {
    ours(|daemon| {
        daemon.stop().unwrap();
        for cli in daemon.clis() {
            let output = At { daemon, cli }.line("version");
            assert_eq!(output.code, 1, "{cli:?}");
            assert!(output.stdout.starts_with("Client:") && !output.stdout.contains("Server:"), "{}", output.stdout);
            assert!(output.stderr.contains("Cannot connect to the "), "{}", output.stderr);
            // Nor is the reason lost in what a template cannot find then.
            for (template, shown) in
                [("{{.Server.Version}}", "\n"), ("{{.Client.Os}}", "linux\n"), ("{{.Client.No}}", "\n")]
            {
                let output = At { daemon, cli }.line(&format!("version --format {template}"));
                assert_eq!((output.code, &output.stdout[..]), (1, shown), "{cli:?} {template}");
                assert!(output.stderr.starts_with("Cannot connect to the "), "{}", output.stderr);
            }
        }
        daemon.restart().unwrap();
    });
}

#[test]
fn privileged_info_tells_what_the_kernel_says() {
    on_both(|at| {
        let info = json(&at.ok("info -f '{{json .}}'"));
        let read = |path: &str| fs::read_to_string(path).unwrap().trim().to_owned();
        assert_eq!(info["KernelVersion"], read("/proc/sys/kernel/osrelease").as_str());
        // A foreign daemon may have a host name and a network of its own.
        if !at.daemon.is_foreign() {
            assert_eq!(info["IPv4Forwarding"], read("/proc/sys/net/ipv4/ip_forward") == "1");
            assert_eq!(info["Name"], read("/proc/sys/kernel/hostname").as_str());
        }
        let meminfo = read("/proc/meminfo");
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
        let total: i64 = total.trim().trim_end_matches(" kB").parse().unwrap();
        assert_eq!(info["MemTotal"], total * 1024);
        let processors = read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
        assert_eq!(info["NCPU"], processors);
        assert_eq!((&info["OSType"], &info["Architecture"]), (&"linux".into(), &std::env::consts::ARCH.into()));
        assert_eq!(info["Driver"], "overlay2");
        let unified = fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok();
        assert_eq!(info["CgroupVersion"], if unified { "2" } else { "1" });
        // A template that names no field is no empty answer.
        at.fails("info -f '{{.Nope}}'", 1, "executing \"\" at <.Nope>");
    });
}

#[test]
fn privileged_info_counts_what_there_is() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        daemon.load(Archive::Layers).unwrap();
        at.start("runs", "busybox sleep 1000");
        at.ok("create --name made --network none busybox true");
        at.ok("run --name ended --network none busybox true");
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let counts =
                "{{.Containers}} {{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}} {{.Images}}";
            assert_eq!(at.ok(&format!("info -f '{counts}'")), "3 1 0 2 2", "{cli:?}");
            let roots = format!("{} json-file true", daemon.scratch().data_root().display());
            assert_eq!(at.ok("info -f '{{.DockerRootDir}} {{.LoggingDriver}} {{.LiveRestoreEnabled}}'"), roots);
            let shown = at.ok("info");
            for line in [" Containers: 3", "  Running: 1", "  Stopped: 2", " Images: 2", " Live Restore Enabled: true"]
            {
                assert!(shown.lines().any(|shown| shown == line), "{cli:?}: {line}: {shown}");
            }
        }
        // What it names can be used: the log drivers, and the networks of a container.
        let drivers = json(&at.ok("info -f '{{json .Plugins.Log}}'"));
        for driver in drivers.as_array().unwrap() {
            // Nobody has to listen at the other end of a datagram; the host may have no syslog.
            let address = if driver == "syslog" { "--log-opt syslog-address=udp://127.0.0.1:9" } else { "" };
            at.run(&format!("--log-driver {} {address} busybox true", driver.as_str().unwrap()));
        }
        assert_eq!(at.ok("info -f '{{json .Plugins.Volume}}'"), r#"["local"]"#);
    });
}

#[test]
fn privileged_events_are_told_as_they_happen() {
    on_both(|at| {
        let name = at.name("told");
        let since = now();
        let line = format!("events --since {since} --filter container={name} --filter type=container");
        let format = "--format '{{.Action}} {{.Actor.Attributes.name}}'";
        let mut events = at.spawn(&format!("{line} {format}"));
        let mut subscribed = at.events(&name);
        at.ok(&format!("create --name {name} --label a=b --network none busybox sh -c 'exit 3'"));
        events.read_until(&format!("create {name}\n")).unwrap();
        assert_eq!(at.line(&format!("start -a {name}")).code, 3);
        for action in ["attach", "start", "die"] {
            assert_eq!(events.read_until("\n").unwrap(), format!("{action} {name}\n"));
        }
        at.remove(&name);
        assert_eq!(events.read_until("\n").unwrap(), format!("destroy {name}\n"));
        events.signal(rustix::process::Signal::KILL).unwrap();
        events.wait().unwrap();
        // Later, what happened until then is told again, and that is all.
        let told = at.ok(&format!("{line} --until {} {format}", now()));
        let told: Vec<&str> = told.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(told, ["create", "attach", "start", "die", "destroy"]);
        let died = at.ok(&format!("{line} --until {} --filter event=die", now()));
        assert!(died.contains(" container die ") && died.contains("a=b, ") && died.contains("exitCode=3"), "{died}");
        assert_eq!(at.ok(&format!("{line} --until {} --filter label=a=c", now())), "");
        // The same with what is in them.
        let died = subscribed.until("die").unwrap();
        assert_eq!(died["Actor"]["Attributes"]["exitCode"], "3");
        assert_eq!(died["Actor"]["Attributes"]["image"], "busybox");
        assert_eq!((&died["Type"], &died["from"]), (&"container".into(), &"busybox".into()));
    });
}

#[test]
fn privileged_a_kill_for_memory_is_an_event_while_the_container_goes_on() {
    on_both(|at| {
        let name = at.name("starved");
        let mut events = at.events(&name);
        let script = "for n in 1 2; do read x < /go; tail -c 100m /dev/zero; done; exec sleep 1000";
        at.ok(&format!(
            "run -d --name {name} --network none --memory 16m busybox sh -c 'mkfifo /go; echo up; {script}'"
        ));
        events.until("start").unwrap();
        for _ in 0..2 {
            at.ok(&format!("exec {name} sh -c 'until [ -p /go ]; do :; done; echo > /go'"));
            let told = events.until("oom").unwrap();
            assert_eq!(told["Actor"]["Attributes"]["name"], name.as_str());
            assert_eq!(told["Actor"]["Attributes"]["image"], "busybox");
        }
        assert_eq!(at.inspect(&name, "{{.State.Running}} {{.State.OOMKilled}}"), "true true");
        at.remove(&name);
    });
}

#[test]
fn privileged_events_of_an_image_tell_its_labels_and_those_of_prunes_their_action() {
    on_both(|at| {
        let (name, image, since) = (at.name("labelled"), at.image("labelled"), now());
        at.ok(&format!("create --name {name} --label told={image} busybox true"));
        at.ok(&format!("commit {name} {image}:1"));
        at.remove(&name);
        at.ok(&format!("rmi {image}:1"));
        at.ok("container prune -f --filter label=nobody=has.this");
        let window = format!("events --since {since} --until {}", now());
        let told = at.ok(&format!("{window} --filter type=image --filter label=told={image} --format {{{{.Action}}}}"));
        assert_eq!(told, "create\ntag\nuntag");
        let pruned = at.ok(&format!("{window} --filter type=container --filter event=prune --format json"));
        let last = json(pruned.lines().last().unwrap());
        assert_eq!((&last["status"], &last["Actor"]["Attributes"]["reclaimed"]), (&"prune".into(), &"0".into()));
    });
}
