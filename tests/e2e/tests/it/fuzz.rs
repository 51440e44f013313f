//! Input that nobody planned, at the real programs, for a bounded time (`testkit::mutate`): bodies of requests, archives
//! with their manifests and layers, frames to a shim. Whatever comes, it is answered, and nobody else notices.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use testkit::images::plan::{Entry, Image, Kind};
use testkit::images::write::{self, Compression};
use testkit::mutate::{Mutator, rounds};
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, http};

use crate::hostile_images::{kept, load, with_layer};
use crate::support::{At, ours};

/// A body with every kind of field. It is never started: its binds would make directories of any name.
fn rich() -> Value {
    let text = r#"{
        "Image": "busybox", "Cmd": ["true"], "Entrypoint": null, "Env": ["A=1", "B"], "User": "0:0", "WorkingDir": "/",
        "Hostname": "h", "Domainname": "", "Tty": false, "OpenStdin": false, "Labels": {"a": "b"}, "StopSignal": "SIGTERM",
        "StopTimeout": 3, "ExposedPorts": {}, "Volumes": {}, "Healthcheck": null, "AttachStdout": true,
        "HostConfig": {
            "Binds": ["/tmp:/x:ro"], "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1}}],
            "NetworkMode": "none", "Memory": 33554432, "NanoCpus": 500000000, "PidsLimit": 5, "ShmSize": 65536,
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}], "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}, "CapAdd": ["NET_ADMIN"],
            "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "Tmpfs": {"/run": "size=1m"}, "Init": true,
            "ReadonlyRootfs": true, "Privileged": false, "GroupAdd": ["1"], "OomScoreAdj": 1, "ConsoleSize": [1, 2],
            "Sysctls": {}, "Devices": [], "PortBindings": {}, "ExtraHosts": [], "AutoRemove": false, "UTSMode": "",
            "IpcMode": "private", "PidMode": "", "CgroupnsMode": "host", "MaskedPaths": ["/proc/kcore"]
        },
        "NetworkingConfig": {"EndpointsConfig": {"none": {}}}
    }"#;
    serde_json::from_str(text).unwrap()
}

/// One that may be started, whatever becomes of it.
fn plain() -> Value {
    json!({
        "Image": "busybox", "Cmd": ["true"], "Env": ["A=1"], "User": "0:0", "WorkingDir": "/", "Hostname": "h", "Tty": false,
        "HostConfig": {
            "NetworkMode": "none", "Memory": 33554432, "NanoCpus": 500000000, "PidsLimit": 5, "ShmSize": 65536,
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}], "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"],
            "Tmpfs": {"/run": "size=1m"}, "Init": true, "ReadonlyRootfs": true, "GroupAdd": ["1"], "OomScoreAdj": 1,
        },
    })
}

#[test]
fn privileged_slow_bodies_of_any_shape_are_answered() {
    ours(|daemon| {
        let (rich, plain) = (rich(), plain());
        rounds(|mutator| {
            let startable = mutator.once_in(4);
            let body = mutator.json(if startable { &plain } else { &rich }).to_string();
            let body = if mutator.once_in(4) { mutator.bytes(body.as_bytes()) } else { body.into_bytes() };
            let answer = post(daemon, "/containers/create", &body);
            let text = String::from_utf8_lossy(&body);
            let Some(id) = answer.json().ok().and_then(|body| body["Id"].as_str().map(str::to_owned)) else {
                return assert!(!answer.message().is_empty(), "{} to {text}", answer.text());
            };
            if startable {
                let answer = post(daemon, &format!("/containers/{id}/start"), b"");
                assert!(answer.status == 204 || !answer.message().is_empty(), "start: {} of {text}", answer.text());
            }
            let gone = http::request(daemon.socket(), "DELETE", &format!("/containers/{id}?force=1"), None).unwrap();
            assert_eq!(gone.status, 204, "{} of {text}", gone.text());
        });
        assert_eq!(daemon.get("/containers/json?all=1").unwrap().text().trim(), "[]");
        never_panicked(daemon);
    });
}

fn post(daemon: &Daemon, path: &str, body: &[u8]) -> http::Response {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    http::raw(daemon.socket(), &[head.as_bytes(), body].concat()).unwrap()
}

fn image() -> Image {
    let link = |path: &str, to: &str| Entry::new(path, 0o777, Kind::Symlink(to.to_owned()));
    let entries = vec![
        Entry::dir("d", 0o755),
        Entry::file("d/file", &"0123456789abcdef".repeat(200)),
        link("d/link", "../../../../d"),
        Entry::new("hard", 0o644, Kind::Hardlink("d/file".into())),
        Entry::new("pipe", 0o600, Kind::Fifo),
        Entry::whiteout("d", "absent"),
        Entry::opaque("d"),
    ];
    Image { tag: "fuzz:latest".into(), layers: vec![entries], command: vec!["true".into()], volumes: vec![] }
}

/// The archive with a change somewhere, or in one of its JSON files.
fn changed(mutator: &mut Mutator, archive: &[u8]) -> Vec<u8> {
    if mutator.once_in(3) {
        return mutator.bytes(archive);
    }
    let victim = mutator.below(4);
    let mut seen = 0;
    let edit = |_: &str, content: Vec<u8>| {
        let Ok(value) = serde_json::from_slice::<Value>(&content) else { return Some(content) };
        seen += 1;
        Some(if seen == victim + 1 { mutator.json(&value).to_string().into_bytes() } else { content })
    };
    write::edited(archive, edit).unwrap()
}

#[test]
fn privileged_slow_archives_of_any_shape_are_answered_and_stay_where_they_belong() {
    ours(|daemon| {
        let canary = daemon.scratch().write("canary", "alive\n").unwrap();
        let before = kept(daemon);
        let archives = [
            write::docker_archive(&image()).unwrap(),
            write::oci_layout(&image(), Compression::None).unwrap(),
            write::oci_layout(&image(), Compression::Gzip).unwrap(),
            write::oci_layout(&image(), Compression::Zstd).unwrap(),
        ];
        let layer = write::layer_tar(&image().layers[0]).unwrap();
        rounds(|mutator| {
            let archive = match mutator.below(2) {
                // With digests that fit: what is wrong with it is found by whoever extracts it, or not at all.
                0 => with_layer(daemon, &mutator.bytes(&layer)),
                _ => {
                    let archive = mutator.pick(&archives).clone();
                    changed(mutator, &archive)
                }
            };
            println!("{}", load(daemon, &archive));
        });
        assert_eq!(fs::read_to_string(canary).unwrap(), "alive\n");
        never_panicked(daemon);
        remove_all_but_busybox(daemon);
        let same = until("the stores are as before", DEADLINE, || (kept(daemon) == before).then_some(()));
        same.unwrap_or_else(|err| {
            panic!("{err}: {:?}", kept(daemon).symmetric_difference(&before).collect::<Vec<_>>())
        });
    });
}

fn remove_all_but_busybox(daemon: &Daemon) {
    let images = daemon.get("/images/json?all=1").unwrap().json().unwrap();
    for one in images.as_array().unwrap() {
        if one["RepoTags"] != json!(["busybox:latest"]) {
            let path = format!("/images/{}?force=1", one["Id"].as_str().unwrap());
            let gone = http::request(daemon.socket(), "DELETE", &path, None).unwrap();
            assert_eq!(gone.status, 200, "{one}: {}", gone.text());
        }
    }
}

#[test]
fn privileged_slow_frames_of_any_shape_do_not_harm_a_shim() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("run -dit --network none --name one busybox sh -c 'while :; do echo line; usleep 10000; done'");
        let id = at.inspect("one", "{{.Id}}");
        let pid = at.inspect("one", "{{.State.Pid}}");
        // The whole path is too long for an address.
        let way = daemon.scratch().path().join("way");
        std::os::unix::fs::symlink(daemon.scratch().exec_root().join("containers").join(&id), &way).unwrap();
        let calls = [
            json!({"Hello": {"version": 1}}),
            json!({"Resize": {"exec_id": null, "height": 24, "width": 80}}),
            json!({"Attach": {"stdin": true, "stdout": true, "stderr": true, "logs": false}}),
            json!({"CheckUser": {"user": "nobody:nogroup"}}),
            json!({"Exec": {"exec_id": "a", "process": {"args": ["true"], "cwd": "/"}}}),
            json!({"Create": {"spec": {"ociVersion": "1.0.0"}}}),
            json!("State"),
            json!("Start"),
        ];
        rounds(|mutator| {
            let mut bytes = Vec::new();
            for _ in 0..=mutator.below(3) {
                let call = json!({"seq": 1, "container": id, "descriptors": 0, "call": mutator.pick(&calls)});
                let text = mutator.json(&call).to_string();
                bytes.extend([&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat());
            }
            if mutator.once_in(3) {
                bytes = mutator.bytes(&bytes);
            }
            converse(&way.join("shim.sock"), &bytes);
        });
        assert_eq!(at.inspect("one", "{{.State.Running}} {{.State.Pid}}"), format!("true {pid}"));
        assert_eq!(at.ok("exec one echo in"), "in");
        let mut attached = at.spawn("attach --no-stdin one");
        attached.read_until("line").unwrap();
        at.remove("one");
        attached.wait().unwrap();
        never_panicked(daemon);
    });
}

/// A panic ends one request only, and its answer may look like another failure's.
fn never_panicked(daemon: &Daemon) {
    let log = daemon.scratch().log();
    assert!(!log.contains("panicked at"), "{log}");
}

/// Says this and no more, and hears until the shim hangs up, as it does to who makes no sense or has gone.
fn converse(socket: &Path, bytes: &[u8]) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    // A shim that hangs up in the middle has said what it thinks of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut heard = Vec::new();
    if let Err(err) = stream.read_to_end(&mut heard) {
        assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset, "{err}");
    }
}
