//! Network devices that move into containers. The host's network is a scratch one for each test.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use super::fixture::Bundle;

/// A network of its own, which ends with the test.
struct Host(std::process::Child);

impl Host {
    fn new(commands: &str) -> Host {
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", "echo; exec sleep 1000"]).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let host = Host(holder);
        for line in commands.lines() {
            let done = host.run(Command::new("ip").args(line.split_whitespace()));
            assert!(done.status.success(), "{line}: {done:?}");
        }
        host
    }

    /// Runs a command there.
    fn run(&self, command: &Command) -> Output {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg(command.get_program()).args(command.get_args());
        if let Some(directory) = command.get_current_dir() {
            inside.current_dir(directory);
        }
        inside.stdin(Stdio::null()).output().unwrap()
    }

    fn links(&self) -> String {
        String::from_utf8(self.run(Command::new("ip").args(["-o", "link"])).stdout).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A pair, of which one end moves, with an address of each family that stays and one that does not.
const PAIR: &str = "link add first type veth peer name second
address add 192.0.2.7/24 brd + dev first
address add 2001:db8::7/64 dev first nodad
address add 192.0.2.9/32 dev first scope link
address add 192.0.2.8/24 dev first valid_lft 900 preferred_lft 900
link set second up
link set first up";

fn printed(host: &Host, bundle: &Bundle) -> String {
    let done = host.run(&bundle.command(&["run", &bundle.id]));
    assert!(done.status.success(), "{done:?}");
    bundle.assert_gone();
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn privileged_a_device_moves_with_its_addresses_and_comes_up() {
    let host = Host::new(PAIR);
    let mut bundle = Bundle::new(&["busybox", "ip", "address"]);
    bundle.config["linux"]["netDevices"] = json!({"first": {"name": "inside"}});
    // It is there when parameters are set.
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.conf.inside.forwarding": "1"});
    let text = printed(&host, &bundle);
    for part in [": inside@", "LOWER_UP", "inet 192.0.2.7/24 brd 192.0.2.255", "inet6 2001:db8::7/64 scope global"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("192.0.2.8") && !text.contains("192.0.2.9"), "{text}");
    // A virtual one ends with the container.
    super::fixture::wait_until("gone", || !host.links().contains("second"));
}

#[test]
fn privileged_the_kernel_chooses_a_number_and_a_network_may_be_there_already() {
    let host = Host::new(PAIR);
    let other = Host::new("link add eth0 type veth peer name eth1");
    let mut bundle = Bundle::new(&["busybox", "ip", "-o", "link"]);
    bundle.config["linux"]["namespaces"][1]["path"] = json!(format!("/proc/{}/ns/net", other.0.id()));
    bundle.config["linux"]["netDevices"] = json!({"first": {"name": "eth%d"}});
    let text = printed(&host, &bundle);
    assert!(text.contains(": eth2@") && text.contains(": eth0@"), "{text}");
    // Nobody takes it back.
    assert!(other.links().contains("eth2") && !host.links().contains("first"));
}

#[test]
fn privileged_what_cannot_move_stays() {
    let host = Host::new(&format!("{PAIR}\nlink set lo up"));
    let other = Host::new("link add eth0 type veth peer name eth1");
    let mut bundle = Bundle::new(&["true"]);
    let failed = "longshore-runtime create failed: unable to start container process: ";
    let mut fails = |devices: serde_json::Value, text: &str| {
        bundle.config["linux"]["netDevices"] = devices;
        let done = host.run(&bundle.command(&["create", &bundle.id]));
        assert_eq!(String::from_utf8(done.stderr).unwrap().trim_end(), format!("{failed}{text}"));
        bundle.assert_gone();
        let links = host.links();
        assert!(
            links.contains(": first@second: <BROADCAST,MULTICAST,UP") && links.contains(": second@first"),
            "{links}"
        );
        assert!(links.contains("1: lo: <LOOPBACK,UP"), "{links}");
    };
    fails(json!({"first": {}, "nosuch": {}}), "linux.netDevices.nosuch: find nosuch: no such device");
    // Naive: brings it down before the kernel refuses to move it, and the host is without loopback.
    fails(json!({"lo": {"name": "x"}}), "linux.netDevices.lo: move lo: invalid argument");
    fails(json!({"second": {"name": "lo"}}), "linux.netDevices.second: move second: file exists");
    bundle.config["linux"]["namespaces"][1]["path"] = json!(format!("/proc/{}/ns/net", other.0.id()));
    bundle.config["linux"]["netDevices"] = json!({"first": {"name": "eth1"}});
    let done = host.run(&bundle.command(&["create", &bundle.id]));
    assert!(String::from_utf8(done.stderr).unwrap().contains("move first: file exists"));
    assert!(host.links().contains(": first@second: <BROADCAST,MULTICAST,UP"));
    bundle.assert_gone();
    assert!(fs::exists(bundle.path("config.json")).unwrap());
}

/// Its maker may not make device nodes, and is to find that out before the devices have moved.
#[test]
fn privileged_devices_move_once_where_no_device_node_can_be_made() {
    let mut bundle = Bundle::new(&["sh", "-c", "busybox ip link; stat -c '%n %t,%T' /dev/zero"]);
    bundle.config["linux"]["netDevices"] = json!({"first": {}});
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("cgroupsPath");
    linux.remove("resources");
    let command = bundle.command(&["run", &bundle.id]);
    let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
    let script = format!(
        "ip link add first type veth peer name second && exec {} {}",
        command.get_program().display(),
        words.join(" ")
    );
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", &script])
        .current_dir(bundle.dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(text.contains(": first@") && text.ends_with("/dev/zero 1,5\n"), "{text} {error}");
}

#[test]
fn privileged_devices_move_into_a_user_namespace() {
    let host = Host::new(PAIR);
    let mut bundle = Bundle::new(&["busybox", "ip", "address"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = ids.clone();
    bundle.config["linux"]["gidMappings"] = ids;
    bundle.config["linux"]["netDevices"] = json!({"first": {}});
    std::os::unix::fs::chown(bundle.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
    let text = printed(&host, &bundle);
    assert!(text.contains(": first@") && text.contains("inet 192.0.2.7/24"), "{text}");
}
