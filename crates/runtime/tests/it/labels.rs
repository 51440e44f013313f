//! Labels of AppArmor and SELinux.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

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
