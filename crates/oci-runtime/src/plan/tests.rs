use super::*;
use oci::runtime::Namespace;

fn namespace(kind: NamespaceKind, path: Option<&str>) -> Namespace {
    Namespace { kind, path: path.map(PathBuf::from) }
}

fn spec(namespaces: Vec<Namespace>) -> Spec {
    Spec { linux: Linux { namespaces, ..Linux::default() }, ..Spec::default() }
}

#[test]
fn the_user_namespace_is_joined_last_and_the_cgroup_one_is_made_late() {
    let plan = Plan::new(&spec(vec![
        namespace(NamespaceKind::User, Some("/u")),
        namespace(NamespaceKind::Network, Some("/n")),
        namespace(NamespaceKind::Pid, Some("/p")),
        namespace(NamespaceKind::Mount, None),
        namespace(NamespaceKind::Cgroup, None),
        namespace(NamespaceKind::Time, None),
    ]));
    let namespaces = plan.unwrap().namespaces;
    let joined: Vec<_> = namespaces.joined.iter().map(|(_, path)| path.to_str().unwrap()).collect();
    assert_eq!(joined, ["/n", "/u"]);
    assert_eq!(namespaces.joined_pid.as_deref(), Some(Path::new("/p")));
    assert!(namespaces.new_cgroup && !namespaces.new_network);
    let new = UnshareFlags::NEWNS | UnshareFlags::NEWTIME;
    assert_eq!(namespaces.new, NewNamespaces(u64::from(new.bits())));
}

#[test]
fn what_cannot_be_done_is_named() {
    let refused = |spec: Spec| Plan::new(&spec).unwrap_err().to_string();
    assert_eq!(refused(spec(vec![namespace(NamespaceKind::User, None)])), "a mount namespace of its own is required");
    let user = vec![namespace(NamespaceKind::Mount, None), namespace(NamespaceKind::User, None)];
    assert_eq!(refused(spec(user)), "linux.uidMappings is empty, and a new user namespace needs ids");
    let mounts_only = || spec(vec![namespace(NamespaceKind::Mount, None)]);
    let named = Spec { hostname: "h".into(), ..mounts_only() };
    assert_eq!(refused(named), "hostname needs a new uts namespace");
    let mount = |destination: &str, kind: &str, option: &str| oci::runtime::Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: "/x".into(),
        options: vec![option.into()],
        ..Default::default()
    };
    for (mount, text) in [
        (mount("/m", "tmpfs", "idmap"), "mapping the ids of /m, which is no bind mount, is not supported"),
        (mount("/m", "bind", "idmap"), "idmap without mappings needs a new user namespace"),
        (mount("/m", "bind", "size=5"), "mount option \"size\" of /m is not supported"),
        (mount("/m", "proc", "tmpcopyup"), "mount option \"tmpcopyup\" of /m is not supported"),
        (mount("/proc/self/attr", "bind", "ro"), "/proc/self/attr cannot be mounted because it is inside /proc"),
        (mount("/proc", "tmpfs", "ro"), "/proc cannot be mounted because it is inside /proc"),
    ] {
        assert_eq!(refused(Spec { mounts: vec![mount], ..mounts_only() }), text);
    }
}

#[test]
fn kernel_parameters_need_their_namespace_and_never_leave_proc_sys() {
    let sysctl = |kind: NamespaceKind, name: &str| {
        let mut spec = spec(vec![namespace(NamespaceKind::Mount, None), namespace(kind, None)]);
        spec.linux.sysctl.insert(name.into(), "1".into());
        Plan::new(&spec).map(|plan| plan.sysctl[0].0.clone()).map_err(|err| err.to_string())
    };
    let network = NamespaceKind::Network;
    assert_eq!(sysctl(network, "net.ipv4.ip_forward").unwrap(), "net/ipv4/ip_forward");
    assert_eq!(sysctl(network, "net/ipv4/conf/eth0.1/forwarding").unwrap(), "net/ipv4/conf/eth0.1/forwarding");
    assert_eq!(sysctl(NamespaceKind::Ipc, "fs.mqueue.msg_max").unwrap(), "fs/mqueue/msg_max");
    for (kind, name) in [
        (NamespaceKind::Ipc, "net.ipv4.ip_forward"),
        (network, "kernel.shmmax"),
        (network, "kernel.core_pattern"),
        (network, "net/../kernel/core_pattern"),
        (network, "net...kernel"),
    ] {
        assert_eq!(sysctl(kind, name).unwrap_err(), format!("sysctl {name:?} is not in a separate kernel namespace"));
    }
}

#[test]
fn file_systems_are_made_in_the_order_in_which_they_are_asked_for() {
    let made_in_child = |kinds: &[&str]| {
        let mount = |kind: &&str| oci::runtime::Mount {
            destination: "/m".into(),
            kind: (*kind).to_owned(),
            source: "/s".into(),
            ..Default::default()
        };
        let spec = spec(vec![namespace(NamespaceKind::Mount, None)]);
        let plan = Plan::new(&Spec { mounts: kinds.iter().map(mount).collect(), ..spec }).unwrap();
        plan.mounts.iter().map(|mount| matches!(mount.kind, MountKind::InChild(_))).collect::<Vec<_>>()
    };
    let kinds = ["tmpfs", "mqueue", "tmpfs", "bind", "ext4", "devpts"];
    assert_eq!(made_in_child(&kinds), [false, true, true, false, false, true]);
    assert_eq!(made_in_child(&["tmpfs", "devpts"]), [false, false]);
}
