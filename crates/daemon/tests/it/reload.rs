//! daemon.json, read again on SIGHUP.

use std::io::{BufRead, BufReader};

use rustix::process::Signal;

use crate::daemon::Scratch;

#[test]
fn privileged_what_can_change_changes_at_once() {
    let scratch = Scratch::new();
    let mut daemon = scratch.start(&[]);
    let events = scratch.open("GET /events HTTP/1.1\r\nHost: d\r\n\r\n");
    let mut lines = BufReader::new(events).lines().map(|line| line.unwrap());
    // The head has come: whoever asked is subscribed.
    lines.find(String::is_empty).unwrap();
    scratch.write(
        "daemon.json",
        r#"{"debug":true,"labels":["a=b"],"insecure-registries":["r:5000","10.0.0.0/8"],"default-shm-size":"1m",
            "registry-mirrors":["http://m:1"],"registry-mirrors-by-host":{"a.b":["https://n"]},
            "default-ipc-mode":"shareable","max-concurrent-downloads":7,"shutdown-timeout":9,"bip":"10.99.0.1/16"}"#,
    );
    daemon.signal(Signal::HUP);
    let event = lines.find(|line| line.contains("reload")).unwrap();
    for part in [
        r#""Type":"daemon""#,
        r#""Action":"reload""#,
        r#""debug":"true""#,
        r#""labels":"[\"a=b\"]""#,
        r#""insecure-registries":"[\"r:5000\",\"10.0.0.0/8\"]""#,
        r#""registry-mirrors":"[\"http://m:1/\"]""#,
        r#""registry-mirrors-by-host":"{\"a.b\":[\"https://n/\"]}""#,
        r#""default-shm-size":"1048576""#,
        r#""default-ipc-mode":"shareable""#,
        r#""max-concurrent-downloads":"7""#,
        r#""shutdown-timeout":"9""#,
        r#""live-restore":"true""#,
        r#""name":""#,
    ] {
        assert!(event.contains(part), "{part} is not in {event}");
    }
    let info = scratch.get("/info");
    for part in [
        r#""Debug":true"#,
        r#""Labels":["a=b"]"#,
        r#"["10.0.0.0/8","127.0.0.0/8","::1/128"]"#,
        r#""r:5000""#,
        r#""Mirrors":["http://m:1/"]}"#,
        r#""a.b":{"Mirrors":["https://n/"],"Name":"a.b","Official":false,"Secure":true}"#,
    ] {
        assert!(info.contains(part), "{part} is not in {info}");
    }
    // What cannot is named.
    scratch.wait_for_log("what changed counts when the daemon starts again: bip");
    scratch.wait_for_log("level=debug");
}

#[test]
fn privileged_a_bad_file_changes_nothing() {
    let scratch = Scratch::new();
    scratch.write("daemon.json", r#"{"labels":["a=b"]}"#);
    let mut daemon = scratch.start(&["-l", "info"]);
    for (text, complaint) in [
        (r#"{"debug":"#, "the configuration stays as it was: unable to configure the daemon with file"),
        (
            r#"{"labels":["a=c"],"log-level":"debug"}"#,
            "are specified both as a flag and in the configuration file: log-level",
        ),
        (r#"{"labels":["c"]}"#, "the configuration stays as it was: bad attribute format: c"),
        (r#"{"foo":1}"#, "don't match any configuration option: foo"),
    ] {
        scratch.write("daemon.json", text);
        daemon.signal(Signal::HUP);
        scratch.wait_for_log(complaint);
        assert!(scratch.get("/info").contains(r#""Labels":["a=b"]"#), "{text}");
    }
}

#[test]
fn privileged_a_log_can_be_json() {
    let scratch = Scratch::new();
    let _daemon = scratch.start(&["--log-format", "json", "--containerd", "/x"]);
    scratch.wait_for_log(r#""msg":"containerd is ignored: there is no containerd""#);
    scratch.wait_for_log(r#""msg":"API listens""#);
}
