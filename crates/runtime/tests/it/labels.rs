//! Labels of AppArmor and SELinux.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde_json::{Value, json};

use super::fields::set;
use super::fixture::Bundle;

#[test]
fn privileged_labels_are_refused_where_the_host_has_none() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    let lacks = |what: &str, field: &str| {
        format!(
            "longshore-runtime create failed: unable to start container process: plan container: {field}: {what} is \
             disabled on this host or not supported by its kernel"
        )
    };
    for (path, what, enabled) in [
        ("process.apparmorProfile", "AppArmor", "/sys/module/apparmor"),
        ("process.selinuxLabel", "SELinux", "/sys/fs/selinux"),
        ("linux.mountLabel", "SELinux", "/sys/fs/selinux"),
    ] {
        if Path::new(enabled).exists() {
            continue;
        }
        set(&mut bundle.config, path, &json!("label"));
        assert_eq!(bundle.err(&["create"]), lacks(what, path));
        bundle.assert_gone();
        set(&mut bundle.config, path, &json!(""));
        bundle.ok(&["run", "-d"]);
        let flag = if what == "AppArmor" { "--apparmor=label" } else { "--process-label=label" };
        let done = bundle.run(&["exec", flag, &bundle.id, "true"]);
        assert!(done.code == Some(255) && done.stderr.contains(&format!("{what} is disabled")), "{done:?}");
        bundle.ok(&["delete", "-f"]);
    }
}

/// A policy namespace of AppArmor, and with it a profile, `:NAME:unconfined`, for which no parser is needed.
struct Policy {
    security: tempfile::TempDir,
    name: String,
}

impl Policy {
    fn new(name: &str) -> Policy {
        let security = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "securityfs", "securityfs"]).arg(security.path()).status();
        assert!(mounted.unwrap().success());
        let policy = Policy { security, name: name.to_owned() };
        fs::create_dir(policy.place()).unwrap();
        policy
    }

    fn place(&self) -> PathBuf {
        self.security.path().join("apparmor/policy/namespaces").join(&self.name)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.place());
        let _ = Command::new("umount").arg(self.security.path()).status();
    }
}

/// The number of a process that is added with these flags.
fn added(bundle: &Bundle, flags: &[&str]) -> String {
    let words = [&["exec", "-d", "--pid-file", "pid"], flags, &[bundle.id.as_str(), "sleep", "1000"]].concat();
    let done = bundle.run(&words);
    assert_eq!(done.code, Some(0), "{done:?}");
    fs::read_to_string(bundle.path("pid")).unwrap()
}

#[test]
fn privileged_a_profile_of_apparmor_is_the_processs_where_the_host_has_it() {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if !enabled.starts_with(b"Y") {
        return testkit::skip::report("needs a kernel with AppArmor");
    }
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    let policy = Policy::new(&bundle.id);
    let profile = format!(":{}:unconfined", policy.name);
    let confined = |pid: &str| {
        let label = fs::read_to_string(format!("/proc/{}/attr/apparmor/current", pid.trim())).unwrap();
        label.contains(&policy.name)
    };
    bundle.config["process"]["apparmorProfile"] = json!(profile);
    bundle.ok(&["run", "-d"]);
    assert!(confined(&bundle.state()["pid"].to_string()));
    assert!(confined(&added(&bundle, &[])));
    bundle.ok(&["delete", "-f"]);
    bundle.config["process"]["apparmorProfile"] = json!("");
    bundle.ok(&["run", "-d"]);
    assert!(!confined(&added(&bundle, &[])) && confined(&added(&bundle, &["--apparmor", &profile])));
    bundle.ok(&["delete", "-f"]);
    bundle.config["process"]["apparmorProfile"] = json!("nosuch");
    let text = "longshore-runtime create failed: unable to start container process: error during container init: \
                process.apparmorProfile: set nosuch: no such file or directory";
    assert_eq!(bundle.err(&["create"]), text);
    bundle.assert_gone();
}

const SELINUX: &str = "/sys/fs/selinux";
/// What a file's label is kept as.
const ATTRIBUTE: &str = "security.selinux";

/// The policy beside this file, which holds containers to it and nobody else, as long as this lives.
struct Enforced;

impl Enforced {
    fn new() -> Enforced {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("labels.cil");
        fs::write(&source, include_str!("labels.cil")).unwrap();
        let compiled = Command::new("secilc")
            .args(["--policyvers=33", "--output=policy", "--filecontext=/dev/null"])
            .arg(&source)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        fs::write(format!("{SELINUX}/load"), fs::read(dir.path().join("policy")).unwrap()).unwrap();
        fs::write(format!("{SELINUX}/enforce"), "1").unwrap();
        Enforced
    }
}

impl Drop for Enforced {
    fn drop(&mut self) {
        let _ = fs::write(format!("{SELINUX}/enforce"), "0");
    }
}

fn label_of(path: &Path) -> String {
    let mut label = [0; 256];
    let length = getxattr(path, ATTRIBUTE, &mut label[..]).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    String::from_utf8_lossy(&label[..length]).trim_end_matches('\0').to_owned()
}

#[test]
fn privileged_vm_labels_of_selinux_confine_processes_and_are_those_of_mounts() {
    let _enforced = Enforced::new();
    let process = "system_u:system_r:container_t:s0:c1,c2";
    let content = "system_u:object_r:content_t:s0:c1,c2";
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    for (file, kind) in [("shown", "content_t"), ("secret", "secret_t")] {
        let path = bundle.path("rootfs").join(file);
        fs::write(&path, file).unwrap();
        let label = format!("system_u:object_r:{kind}:s0");
        setxattr(&path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty()).unwrap();
    }
    let queues = json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"});
    bundle.config["mounts"].as_array_mut().unwrap().push(queues);
    bundle.config["process"]["selinuxLabel"] = json!(process);
    bundle.config["linux"]["mountLabel"] = json!(content);
    bundle.config["linux"]["maskedPaths"].as_array_mut().unwrap().push(json!("/proc/fs"));
    bundle.ok(&["run", "-d"]);
    let current = |pid: &Value| {
        let label = fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
        label.trim_end_matches('\0').to_owned()
    };
    let pid = bundle.state()["pid"].clone();
    assert_eq!(current(&pid), process);
    for place in ["dev", "dev/null", "dev/pts", "dev/mqueue", "proc/fs"] {
        assert_eq!(label_of(&PathBuf::from(format!("/proc/{pid}/root/{place}"))), content, "{place}");
    }
    let read = |flags: &[&str], file: &str| bundle.run(&[&["exec"], flags, &[&bundle.id, "cat", file]].concat());
    assert_eq!(read(&[], "/shown").stdout, "shown");
    let refused = read(&[], "/secret");
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), "cat: can't open '/secret': Permission denied\n"));
    // Whoever is not confined reads it.
    let unconfined = read(&["--process-label=system_u:system_r:kernel_t:s0"], "/secret");
    assert_eq!((unconfined.code, unconfined.stdout.as_str()), (Some(0), "secret"));
    let narrow = "system_u:system_r:container_t:s0:c1";
    assert_eq!(current(&json!(added(&bundle, &["--process-label", narrow]).trim().parse::<u32>().unwrap())), narrow);
    bundle.ok(&["delete", "-f"]);
    bundle.config["process"]["selinuxLabel"] = json!("system_u:system_r:nosuch_t:s0");
    let text = "longshore-runtime create failed: unable to start container process: error during container init: \
                process.selinuxLabel: set system_u:system_r:nosuch_t:s0: invalid argument";
    assert_eq!(bundle.err(&["create"]), text);
    bundle.assert_gone();
    bundle.config["process"]["selinuxLabel"] = json!(process);
    bundle.config["linux"]["mountLabel"] = json!("system_u:object_r:nosuch_t:s0");
    let text = bundle.err(&["create"]);
    assert!(text.contains("mounts[1]") && text.contains("context=system_u:object_r:nosuch_t:s0"), "{text}");
    bundle.assert_gone();
}
