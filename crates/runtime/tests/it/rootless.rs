//! The whole program in the hands of somebody without privilege.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use super::fixture::{Bundle, wait_until};

/// daemon, who is in every passwd: newuidmap wants a name.
const USER: u32 = 1;

/// A bundle of daemon's, with these ids.
fn bundle(args: &[&str], ids: &serde_json::Value) -> Bundle {
    let mut bundle = Bundle::new(args);
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("cgroupsPath");
    linux.remove("resources");
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    linux.insert("uidMappings".into(), ids.clone());
    linux.insert("gidMappings".into(), ids.clone());
    fs::copy(env!("CARGO_BIN_EXE_longshore-runtime"), bundle.path("runtime")).unwrap();
    give(bundle.dir.path());
    bundle
}

fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).unwrap_or_else(|_| assert!(path.is_symlink()));
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
}

/// Runs the program as daemon, after `first` as root in mounts of its own.
fn run_after(bundle: &Bundle, first: &str, words: &[&str]) -> Output {
    fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
    let script =
        format!("{first}exec setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all ./runtime \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]).args(words).current_dir(bundle.dir.path());
    command.env("XDG_RUNTIME_DIR", bundle.path("run")).output().unwrap()
}

fn run(bundle: &Bundle, words: &[&str]) -> (String, String, Option<i32>) {
    let output = run_after(bundle, "", words);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn privileged_what_an_ordinary_user_may_not_see_is_not_told_to_be_gone() {
    let bundle = bundle(&["true"], &json!([]));
    let closed = bundle.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    for command in ["state", "kill"] {
        let (_, said, code) = run(&bundle, &["--root", closed.to_str().unwrap(), command, "one"]);
        assert!(code == Some(1) && said.contains("one: permission denied"), "{said}");
    }
}

#[test]
fn privileged_an_ordinary_user_has_containers_of_one_id() {
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let script = "id; cat /proc/self/uid_map /proc/self/setgroups; stat -c '%n %u %t,%T' /dev /dev/null; echo > /dev/null && echo null";
    let mut bundle = bundle(&["sh", "-c", script], &own);
    let expected = "uid=0 gid=0\n         0          1          1\ndeny\n/dev 0 0,0\n/dev/null 65534 1,3\nnull\n";
    assert_eq!(run(&bundle, &["run", "one"]), (expected.into(), String::new(), Some(0)));
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    let good = (String::new(), String::new(), Some(0));
    // Of what is left running nothing holds the streams.
    let detached =
        |words: &str| run_after(&bundle, "exec > out 2>&1; ", &words.split(' ').collect::<Vec<_>>()).status.code();
    assert_eq!(detached("create two"), Some(0), "{:?}", fs::read_to_string(bundle.path("out")));
    assert!(bundle.path("run/longshore-runtime/two/state.json").exists());
    assert_eq!(run(&bundle, &["start", "two"]), good);
    let state: serde_json::Value = serde_json::from_str(&run(&bundle, &["state", "two"]).0).unwrap();
    assert_eq!((&state["status"], &state["owner"]), (&json!("running"), &json!("")));
    let inside = run(&bundle, &["exec", "two", "sh", "-c", "id; cat /proc/self/uid_map; exit 7"]);
    assert_eq!(inside, ("uid=0 gid=0\n         0          1          1\n".into(), String::new(), Some(7)));
    // Without a cgroup all that is known is the first process; the others of its PID namespace end with it.
    assert_eq!(run(&bundle, &["kill", "--all", "two", "KILL"]), good);
    wait_until("stopped", || run(&bundle, &["state", "two"]).0.contains("\"stopped\""));
    assert_eq!(run(&bundle, &["delete", "two"]), good);
    assert!(!bundle.path("run/longshore-runtime/two").exists());
}

#[test]
fn privileged_an_ordinary_user_is_told_what_others_than_root_need() {
    let bundle = bundle(&["true"], &json!([{"containerID": 0, "hostID": USER, "size": 1}]));
    let said = |first: &str, words: &[&str]| String::from_utf8(run_after(&bundle, first, words).stderr).unwrap();
    let hint = "($XDG_RUNTIME_DIR, which has another one for others than root, is not set): permission denied";
    let text = said("unset XDG_RUNTIME_DIR; ", &["create", "one"]);
    assert!(text.contains("--root: create ") && text.contains(hint), "{text}");
    let text = said("unset XDG_RUNTIME_DIR; ", &["--root", "/nosuch", "create", "one"]);
    assert!(text.contains("--root: create /nosuch: permission denied"), "{text}");
    let text = said("rm config.json; ", &["spec"]);
    assert!(text.contains("level=warning") && text.contains("--rootless writes one for others"), "{text}");
    assert_eq!(said("rm config.json; ", &["spec", "--rootless"]), "");
    let mut bundle = bundle;
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    linux["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
    let (_, text, code) = run(&bundle, &["run", "two"]);
    let expected = "linux.namespaces: rootless container requires user namespaces: user 1 of the host needs one of type \\\"user\\\"";
    assert!(code == Some(1) && text.contains(expected), "{text}");
}

#[test]
fn privileged_a_container_that_cannot_be_handed_out_ends_without_a_cgroup() {
    let bundle = bundle(&["true"], &json!([{"containerID": 0, "hostID": USER, "size": 1}]));
    let words = ["create", "--pid-file", "missing/pid", &bundle.id];
    assert_eq!(run_after(&bundle, "exec > out 2>&1; ", &words).status.code(), Some(1));
    // The first process is a copy of the program until it executes its own.
    let is_there = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| contains(&words, &bundle.id));
    let processes =
        || fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    wait_until("no process is left", || !processes().any(|pid| is_there(&pid)));
}

fn contains(words: &[u8], word: &str) -> bool {
    words.split(|byte| *byte == 0).any(|one| one == word.as_bytes())
}

#[test]
fn privileged_more_ids_come_from_the_programs_that_give_them() {
    let ids =
        json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 200_000, "size": 100}]);
    let mut bundle = bundle(&["sh", "-c", "id; cat /proc/self/gid_map /proc/self/setgroups"], &ids);
    bundle.config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]});
    fs::write(bundle.path("ids"), "daemon:200000:100\n").unwrap();
    fs::set_permissions(bundle.path("ids"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = run_after(&bundle, "", &["run", "refused"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("linux.uidMappings: map the ids: newuidmap: "), "{error}");
    let given = "busybox mount -o bind ids /etc/subuid && busybox mount -o bind ids /etc/subgid && ";
    let output = run_after(&bundle, given, &["run", "more"]);
    let expected = "uid=5 gid=6 groups=7\n         0          1          1\n         1     200000        100\nallow\n";
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((String::from_utf8(output.stdout).unwrap().as_str(), error.as_str()), (expected, ""));
}

#[test]
fn privileged_limits_without_permission_are_refused() {
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let mut bundle = bundle(&["true"], &own);
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 5}});
    let (_, error, code) = run(&bundle, &["run", "limited"]);
    assert!(
        error.contains("rootless needs no limits + no cgrouppath when no permission is granted for cgroups"),
        "{error}"
    );
    assert_eq!(code, Some(1));
    bundle.config["linux"].as_object_mut().unwrap().remove("resources");
    let (_, error, code) = run(&bundle, &["--rootless=false", "run", "without"]);
    assert!(error.to_lowercase().contains("permission denied"), "{error}");
    assert_eq!(code, Some(1));
    let left = fs::read_dir(bundle.path("run/longshore-runtime")).unwrap();
    assert!(left.flatten().all(|entry| entry.file_name() == ".seccomp"));
}

#[test]
fn privileged_root_of_a_user_namespace_needs_no_other() {
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let script = "id; cat /proc/self/uid_map; stat -c '%n %t,%T' /dev/zero; mkdir /tmp/made";
    let mut bundle = bundle(&["sh", "-c", script], &own);
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    linux["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
    fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
    // As podman without privilege runs its runtime.
    let script =
        "exec setpriv --reuid 1 --regid 1 --clear-groups --inh-caps=-all unshare -Urm ./runtime --root root run nested";
    let output = Command::new("sh").args(["-c", script]).current_dir(bundle.dir.path()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = "uid=0 gid=0\n         0          1          1\n/dev/zero 1,5\n";
    assert_eq!((String::from_utf8(output.stdout).unwrap().as_str(), error.as_str()), (expected, ""));
    assert!(bundle.path("rootfs/tmp/made").is_dir());
}

#[test]
fn privileged_a_listener_decides_for_an_ordinary_user() {
    use super::seccomp::{agent, no_mkdir, notifying};
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let mut bundle = bundle(&["mkdir", "/tmp/made"], &own);
    bundle.config = notifying(&bundle, &["mkdir", "mkdirat"], false);
    let path = bundle.path("agent");
    let agent = agent(&path, 1, no_mkdir);
    give(&path);
    let (_, stderr, _) = run(&bundle, &["run", "one"]);
    assert_eq!(stderr, "mkdir: can't create directory '/tmp/made': Disk quota exceeded\n");
    agent.join().unwrap();
    // The message with the descriptor would wait for the decision of whoever is to get it: for ever.
    bundle.config = notifying(&bundle, &["sendmsg"], false);
    let (_, stderr, code) = run(&bundle, &["run", "two"]);
    assert!(code == Some(1) && stderr.contains("take the process's descriptor"), "{stderr}");
}
