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
    let joined: Vec<_> = namespaces.joined.iter().map(|joined| joined.path.to_str().unwrap()).collect();
    assert_eq!(joined, ["/n", "/u"]);
    let pid = namespaces.joined_pid.unwrap();
    assert_eq!((pid.field.as_str(), pid.path.as_path()), ("linux.namespaces[2].path", Path::new("/p")));
    assert!(namespaces.new_cgroup && !namespaces.new_network);
    let new = UnshareFlags::NEWNS | UnshareFlags::NEWTIME;
    assert_eq!(namespaces.new, NewNamespaces(u64::from(new.bits())));
}

#[test]
fn what_cannot_be_done_is_named() {
    let refused = |spec: Spec| errdefs::chain(&Plan::new(&spec).unwrap_err());
    assert_eq!(
        refused(spec(vec![namespace(NamespaceKind::User, None)])),
        "linux.namespaces: a mount namespace of its own is required"
    );
    let user = vec![namespace(NamespaceKind::Mount, None), namespace(NamespaceKind::User, None)];
    assert_eq!(refused(spec(user)), "linux.uidMappings: is empty, and a new user namespace needs ids");
    let mounts_only = || spec(vec![namespace(NamespaceKind::Mount, None)]);
    let named = Spec { hostname: "h".into(), ..mounts_only() };
    assert_eq!(refused(named), "hostname: needs a uts namespace in linux.namespaces");
    let mount = |destination: &str, kind: &str, option: &str| oci::runtime::Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: "/x".into(),
        options: vec![option.into()],
        ..Default::default()
    };
    for (mount, text) in [
        (
            mount("/m", "tmpfs", "idmap"),
            "options: \"idmap\" is no option of a mount that is no bind mount: ids are mapped of those alone",
        ),
        (
            mount("/m", "bind", "idmap"),
            "options: needs uidMappings and gidMappings, or a user namespace whose ids are mapped",
        ),
        (mount("/m", "bind", "size=5"), "options: \"size=5\" is no option of a bind mount"),
        (mount("/m", "bind", "nosuch"), "options: \"nosuch\" is no option of a bind mount"),
        (mount("/m", "proc", "tmpcopyup"), "options: \"tmpcopyup\" is no option of a mount that is not of type tmpfs"),
        (oci::runtime::Mount { source: "".into(), ..mount("/m", "bind", "ro") }, "source: is empty"),
        (mount("", "tmpfs", "ro"), "destination: is empty"),
        (
            mount("/proc/self/attr", "bind", "ro"),
            "destination: /proc/self/attr cannot be mounted because it is inside /proc",
        ),
        (
            mount("/proc", "tmpfs", "ro"),
            "type: /proc cannot be mounted because it is not of type proc: only proc, or a bind mount of one, may be there",
        ),
        (mount("/c", "cgroup", "nosuch"), "options: \"nosuch\" is no option of a cgroup mount"),
        (mount("/c", "cgroup2", "size=1"), "options: \"size=1\" is no option of a cgroup mount"),
    ] {
        // Each is named with its place in the list.
        let good = oci::runtime::Mount { destination: "/t".into(), kind: "tmpfs".into(), ..Default::default() };
        let text = format!("mounts[1].{text}");
        assert_eq!(refused(Spec { mounts: vec![good, mount], ..mounts_only() }), text);
    }
    let range = |size| oci::runtime::IdMapping { container_id: 5, host_id: 5, size };
    let mapped = |users: Vec<_>, groups: Vec<_>| {
        let mount = mount("/m", "bind", "idmap");
        Spec {
            mounts: vec![oci::runtime::Mount { uid_mappings: users, gid_mappings: groups, ..mount }],
            ..mounts_only()
        }
    };
    for (spec, text) in [
        (mapped(vec![range(1)], vec![]), "mounts[0].gidMappings: is empty, and an id-mapped mount needs both"),
        (
            mapped(vec![range(1), range(0)], vec![range(1)]),
            "mounts[0].uidMappings[1].size: 0 is no range: it has one id at least",
        ),
        (
            mapped(vec![range(u32::MAX)], vec![]),
            "mounts[0].uidMappings[0].containerID: 4294967295 ids from 5 on go beyond the last one, 4294967294",
        ),
    ] {
        assert_eq!(refused(spec), text);
    }
}

#[test]
fn kernel_parameters_need_their_namespace_and_never_leave_proc_sys() {
    let sysctl = |kind: NamespaceKind, name: &str| {
        let mut spec = spec(vec![namespace(NamespaceKind::Mount, None), namespace(kind, None)]);
        spec.linux.sysctl.insert(name.into(), "1".into());
        Plan::new(&spec).map(|plan| plan.sysctl[0].path.clone()).map_err(|err| errdefs::chain(&err))
    };
    let network = NamespaceKind::Network;
    assert_eq!(sysctl(network, "net.ipv4.ip_forward").unwrap(), "net/ipv4/ip_forward");
    assert_eq!(sysctl(network, "net/ipv4/conf/eth0.1/forwarding").unwrap(), "net/ipv4/conf/eth0.1/forwarding");
    assert_eq!(sysctl(NamespaceKind::Ipc, "fs.mqueue.msg_max").unwrap(), "fs/mqueue/msg_max");
    for (kind, name, needs) in [
        (NamespaceKind::Ipc, "net.ipv4.ip_forward", ": it needs the network namespace in linux.namespaces"),
        (network, "kernel.shmmax", ": it needs the ipc namespace in linux.namespaces"),
        (network, "kernel.core_pattern", ""),
        (network, "net/../kernel/core_pattern", ""),
        (network, "net...kernel", ""),
    ] {
        let text = format!("linux.sysctl[{name:?}]: sysctl {name:?} is not in a separate kernel namespace{needs}");
        assert_eq!(sysctl(kind, name).unwrap_err(), text);
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
