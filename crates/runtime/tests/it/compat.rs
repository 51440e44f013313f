//! What other programs have always been given: profiles from before newer system calls.

use serde_json::json;

use crate::fixture::Bundle;

/// A filter is loaded before privileges are dropped, so what comes after is under it: profiles are older than kernels.
#[test]
fn privileged_a_profile_that_knows_no_newer_system_calls_is_no_obstacle() {
    let newer = ["faccessat2", "close_range", "openat2", "clone3", "execveat", "statx"];
    for (no_new_privileges, denied) in [(false, &newer[..]), (true, &newer[..]), (false, &["faccessat2", "faccessat"])]
    {
        let mut bundle = Bundle::new(&["sh", "-c", "echo $(id -u) $HOOK; ls /proc/self/fd | wc -l"]);
        bundle.config["process"]["noNewPrivileges"] = no_new_privileges.into();
        bundle.config["linux"]["seccomp"]["syscalls"] = json!([{"names": denied, "action": "SCMP_ACT_ERRNO"}]);
        bundle.config["hooks"]["startContainer"] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", "ls /proc/self/fd | wc -l > /tmp/hook"]}]);
        // wc's own standard streams, and the directory that ls reads.
        assert_eq!(bundle.ok(&["run"]), "0\n4\n", "{denied:?}");
        assert_eq!(std::fs::read_to_string(bundle.path("rootfs/tmp/hook")).unwrap(), "4\n");
    }
}
