//! Cgroups that belong to those inside.

use std::fs;
use std::os::unix::fs::MetadataExt;

use cgroup::{Hierarchies, Version};
use serde_json::json;

use super::fixture::Bundle;

/// A container whose root is user 100,000 outside, and which sees its cgroup.
fn mapped(options: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    (bundle.config["linux"]["uidMappings"], bundle.config["linux"]["gidMappings"]) = (ids.clone(), ids);
    // The container's root may make none.
    fs::create_dir_all(bundle.path("rootfs/sys/fs/cgroup")).unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"source": "cgroup", "type": "cgroup", "destination": "/sys/fs/cgroup", "options": options}));
    bundle
}

/// The owners of the cgroup's directory, of what is given away, and of what is not.
fn owners(bundle: &Bundle) -> [u32; 4] {
    let group = bundle.cgroup();
    let (_, directory) = group.directories.first().unwrap();
    ["", "cgroup.procs", "cgroup.subtree_control", "memory.max"]
        .map(|file| fs::metadata(directory.join(file)).unwrap().uid())
}

#[test]
fn privileged_vm_a_cgroup_that_may_be_written_belongs_to_the_containers_root() {
    assert_eq!(Hierarchies::detect().unwrap().version(), Version::V2, "run `cargo xtask vm-test`");
    let bundle = mapped(&["rw", "nosuid"]);
    bundle.ok(&["run", "-d"]);
    assert_eq!(owners(&bundle), [100_000, 100_000, 100_000, 0]);
    let script = "cd /sys/fs/cgroup; mkdir below; for pid in $(cat cgroup.procs); do echo $pid > below/cgroup.procs; done; \
                  echo +pids > cgroup.subtree_control; echo 20 > below/pids.max; cat below/pids.max; cat /proc/self/cgroup; \
                  echo max > pids.max || echo kept";
    let done = bundle.run(&["exec", &bundle.id, "sh", "-c", script]);
    assert_eq!(done.stdout, "20\n0::/below\nkept\n", "{done:?}");
    // The first process is below now: others come beside it.
    let done = bundle.run(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    assert_eq!(done.stdout, "0::/below\n", "{done:?}");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
    // Another user than root, of the container's or the host's.
    let mut bundle = mapped(&["rw"]);
    bundle.config["process"]["user"] = json!({"uid": 7, "gid": 7});
    bundle.ok(&["create"]);
    assert_eq!(owners(&bundle), [100_007, 100_007, 100_007, 0]);
    bundle.ok(&["delete", "-f"]);
}

#[test]
fn privileged_vm_a_cgroup_that_may_not_be_written_stays_the_hosts() {
    assert_eq!(Hierarchies::detect().unwrap().version(), Version::V2, "run `cargo xtask vm-test`");
    let mut bundle = mapped(&["ro"]);
    bundle.ok(&["create"]);
    assert_eq!(owners(&bundle), [0; 4]);
    bundle.ok(&["delete", "-f"]);
    bundle = mapped(&["rw"]);
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    bundle.ok(&["create"]);
    assert_eq!(owners(&bundle), [0; 4]);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}
