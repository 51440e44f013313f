//! Containers whose root is somebody else outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use super::fixture::{Bundle, wait_until};
use super::foreground::session_with_files;

/// A container with ids of its own, whose root may not look into the bundle's directory.
fn mapped(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(args);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    bundle.config["linux"]["uidMappings"] = ids.clone();
    bundle.config["linux"]["gidMappings"] = ids;
    bundle
}

fn add_mount(bundle: &mut Bundle, destination: &str, kind: &str, source: &str, options: &str) {
    let options: Vec<_> = options.split(',').collect();
    let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn privileged_a_container_has_ids_of_its_own_and_owns_its_file_systems() {
    let script = "id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; stat -c '%n %u %t,%T' /dev /dev/null \
                  /dev/mqueue /proc /dev/pts; echo x > /dev/null && echo null; grep Cap /proc/self/status; hostname";
    let mut bundle = mapped(&["sh", "-c", script]);
    add_mount(&mut bundle, "/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro");
    add_mount(&mut bundle, "/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev");
    add_mount(&mut bundle, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro");
    let done = bundle.run(&["run", &bundle.id]);
    let expected = "uid=0 gid=0\n         0     100000       1000\n         0     100000       1000\nallow\n\
                    /dev 0 0,0\n/dev/null 65534 1,3\n/dev/mqueue 0 0,0\n/proc 65534 0,0\n/dev/pts 0 0,0\nnull\n\
                    CapInh:\t0000000000000000\nCapPrm:\t0000000000000021\nCapEff:\t0000000000000021\n\
                    CapBnd:\t0000000000000021\nCapAmb:\t0000000000000000\nbundle\n";
    assert_eq!((done.stdout.as_str(), done.stderr.as_str(), done.code), (expected, "", Some(0)));
    bundle.assert_gone();
}

#[test]
fn privileged_an_exec_joins_the_user_namespace_and_has_its_ids() {
    let bundle = mapped(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let done = bundle.run(&["exec", "-u", "5:6", "-g", "7", &bundle.id, "sh", "-c", "id; readlink /proc/self/ns/user"]);
    assert_eq!((done.stderr.as_str(), done.code), ("", Some(0)));
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let namespace = fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(done.stdout, format!("uid=5 gid=6 groups=7\n{}\n", namespace.display()));
    assert_ne!(namespace, fs::read_link("/proc/self/ns/user").unwrap());
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 100_000);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_a_bind_of_a_closed_directory_works_and_keeps_what_the_host_has_locked() {
    let script = "cat /in/file; mount -o remount,bind,rw /in && echo unlocked; echo x > /in/file";
    let mut bundle = mapped(&["sh", "-c", script]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    }
    fs::create_dir(bundle.path("in")).unwrap();
    fs::write(bundle.path("in/file"), "seen\n").unwrap();
    // The world may write the file, but nobody may pass the directory above it.
    fs::set_permissions(bundle.path("in/file"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::create_dir(bundle.path("rootfs/in")).unwrap();
    let source = bundle.path("in");
    add_mount(&mut bundle, "/in", "bind", source.to_str().unwrap(), "rbind");
    let read_only = format!("busybox mount -o bind {0} {0} && busybox mount -o remount,bind,ro {0}", source.display());
    let runtime = env!("CARGO_BIN_EXE_longshore-runtime");
    bundle.command(&["state", "x"]).output().unwrap();
    let script = format!("{read_only} && exec {runtime} --root root run {}", bundle.id);
    let output = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .current_dir(bundle.dir.path())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "seen\n", "{error}");
    assert!(error.contains("permission denied") && error.contains("Read-only file system"), "{error}");
    bundle.assert_gone();
}

#[test]
fn privileged_a_container_joins_the_user_namespace_of_another() {
    let first = mapped(&["sleep", "1000"]);
    first.ok(&["run", "-d"]);
    let pid = first.state()["pid"].as_i64().unwrap();
    let mut second =
        Bundle::new(&["sh", "-c", "id; readlink /proc/self/ns/user; readlink /proc/self/ns/net; stat -c %u /dev"]);
    let namespaces = second.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    namespaces.push(json!({"type": "network", "path": format!("/proc/{pid}/ns/net")}));
    let done = second.run(&["run", &second.id]);
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string();
    let expected = format!("uid=0 gid=0\n{}\n{}\n0\n", link("user"), link("net"));
    assert_eq!((done.stdout, done.stderr.as_str(), done.code), (expected, "", Some(0)));
    second.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 5, "size": 1}]);
    let text = second.err(&["create"]);
    assert!(text.ends_with("linux.uidMappings: is not what the user namespace to join has"), "{text}");
    first.ok(&["delete", "-f"]);
    second.assert_gone();
    first.assert_gone();
}

#[test]
fn privileged_a_user_namespace_without_a_root_is_not_joined() {
    let mut other = std::process::Command::new("unshare").args(["-U", "sleep", "1000"]).spawn().unwrap();
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    let theirs = format!("/proc/{}/ns/user", other.id());
    wait_until("another user namespace", || fs::read_link(&theirs).is_ok_and(|there| there != own));
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", other.id()), "5 100000 10").unwrap();
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user", "path": theirs}));
    let text = bundle.err(&["create"]);
    assert!(text.ends_with("linux.namespaces[6].path: maps no id to 0, as whom the container is made"), "{text}");
    bundle.assert_gone();
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn privileged_an_id_that_is_not_mapped_is_named() {
    let mut bundle = mapped(&["true"]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 0});
    let text = bundle.err(&["create"]);
    assert!(
        text.ends_with("process.user.uid: 1000 is no id of the container's user namespace: invalid argument"),
        "{text}"
    );
    bundle.config["process"]["user"] = json!({"uid": 0, "gid": 1000});
    let text = bundle.err(&["create"]);
    assert!(
        text.ends_with("process.user.gid: 1000 is no id of the container's user namespace: invalid argument"),
        "{text}"
    );
    bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [5, 1000, 6]});
    let text = bundle.err(&["create"]);
    let named = "process.user.additionalGids[1]: 1000 is no id of the container's user namespace: invalid argument";
    assert!(text.ends_with(named), "{text}");
    bundle.assert_gone();
}

#[test]
fn privileged_hooks_find_a_root_in_a_directory_that_its_own_root_may_not_pass() {
    let mut bundle = mapped(&["cat", "/tmp/made"]);
    fs::set_permissions(bundle.path("rootfs/tmp"), fs::Permissions::from_mode(0o777)).unwrap();
    let rootfs = bundle.path("rootfs");
    let outside = format!("echo outside > {}/tmp/made", rootfs.display());
    let hook = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    // The one in the container's namespaces is its root.
    let inside = "test $(busybox id -u) = 0";
    bundle.config["hooks"] = json!({"createRuntime": hook(&outside), "createContainer": hook(inside)});
    let done = bundle.run(&["run", &bundle.id]);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str(), done.code), ("outside\n", "", Some(0)));
    bundle.assert_gone();
}

#[test]
fn privileged_sys_of_the_hosts_network_is_the_hosts() {
    let mut bundle = mapped(&[
        "sh",
        "-c",
        "stat -f -c %T /sys; ls /sys/class/net; echo x 2>/dev/null > /sys/power/state || echo ro",
    ]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
    add_mount(&mut bundle, "/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro");
    let done = bundle.run(&["run", &bundle.id]);
    assert_eq!((done.stderr.as_str(), done.code), ("", Some(0)));
    let lines: Vec<_> = done.stdout.lines().collect();
    assert!(lines.first() == Some(&"sysfs") && lines.last() == Some(&"ro"), "{lines:?}");
    assert!(lines.contains(&"lo"), "{lines:?}");
    bundle.assert_gone();
}

#[test]
fn privileged_a_terminal_belongs_to_the_user_who_has_it_inside() {
    let script = "stat -c '%u %a' $(readlink /proc/self/fd/0); echo shown > /dev/console; echo known > /dev/tty";
    let mut bundle = mapped(&["sh", "-c", script]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["user"] = json!({"uid": 5, "gid": 6});
    assert_eq!(on_a_terminal(&bundle, &["run", &bundle.id]), "5 620\r\nshown\r\nknown\r\n");
    bundle.config["process"] = json!({"args": ["sleep", "1000"], "env": ["PATH=/bin"], "cwd": "/"});
    bundle.ok(&["run", "-d"]);
    let added = ["exec", "-t", "-u", "7:8", &bundle.id, "sh", "-c", "stat -c '%u %a' $(readlink /proc/self/fd/0)"];
    assert_eq!(on_a_terminal(&bundle, &added), "7 620\r\n");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

/// What a program shows that succeeds and says nothing else.
fn on_a_terminal(bundle: &Bundle, words: &[&str]) -> String {
    let (mut command, _terminal) = session_with_files(bundle, "/dev/null", words);
    let output = command.output().unwrap();
    assert_eq!((String::from_utf8(output.stderr).unwrap().as_str(), output.status.code()), ("", Some(0)));
    String::from_utf8(output.stdout).unwrap()
}
