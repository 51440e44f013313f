use super::*;
use oci::runtime::Namespace;

fn range(container_id: u32, host_id: u32, size: u32) -> IdMapping {
    IdMapping { container_id, host_id, size }
}

fn linux(user: Option<Option<&str>>, uid_mappings: Vec<IdMapping>, gid_mappings: Vec<IdMapping>) -> Linux {
    let namespace = |path: Option<&str>| Namespace { kind: NamespaceKind::User, path: path.map(PathBuf::from) };
    Linux { namespaces: user.map(namespace).into_iter().collect(), uid_mappings, gid_mappings, ..Linux::default() }
}

#[test]
fn ids_belong_to_a_user_namespace_and_a_new_one_needs_them() {
    let ids = vec![range(0, 100_000, 65536)];
    let new = UserNamespace::New { users: ids.clone(), groups: ids.clone() };
    assert_eq!(UserNamespace::plan(&linux(None, vec![], vec![])).unwrap(), None);
    assert_eq!(UserNamespace::plan(&linux(Some(None), ids.clone(), ids.clone())).unwrap(), Some(new));
    let joined = UserNamespace::Joined { users: vec![], groups: vec![] };
    assert_eq!(UserNamespace::plan(&linux(Some(Some("/u")), vec![], vec![])).unwrap(), Some(joined));
    for (linux, text) in [
        (linux(None, ids.clone(), vec![]), "linux.uidMappings: needs a user namespace in linux.namespaces"),
        (linux(None, vec![], ids.clone()), "linux.gidMappings: needs a user namespace in linux.namespaces"),
        (linux(Some(None), vec![], ids.clone()), "linux.uidMappings: is empty, and a new user namespace needs ids"),
        (linux(Some(None), ids.clone(), vec![]), "linux.gidMappings: is empty, and a new user namespace needs ids"),
        (
            linux(Some(None), vec![range(0, 0, 0)], ids.clone()),
            "linux.uidMappings[0].size: 0 is no range: it has one id at least",
        ),
        (
            linux(Some(None), ids.clone(), vec![range(0, 5, u32::MAX)]),
            "linux.gidMappings[0].hostID: 4294967295 ids from 5 on go beyond the last one, 4294967294",
        ),
        (
            linux(Some(None), vec![range(0, 9, 5), range(u32::MAX, 0, 1)], ids.clone()),
            "linux.uidMappings[1].containerID: 1 ids from 4294967295 on go beyond the last one, 4294967294",
        ),
        (
            linux(Some(None), vec![range(0, 0, 10), range(10, 10, 5), range(9, 99, 2)], ids.clone()),
            "linux.uidMappings[2].containerID: 9 to 10 overlap linux.uidMappings[0]",
        ),
        (
            linux(Some(None), ids.clone(), vec![range(1, 7, 1), range(0, 7, 1)]),
            "linux.gidMappings[1].hostID: 7 to 7 overlap linux.gidMappings[0]",
        ),
        (
            linux(Some(None), vec![range(1, 0, 1)], ids.clone()),
            "linux.uidMappings: maps no id to 0, as whom the container is made",
        ),
        (
            linux(Some(None), ids.clone(), vec![range(1, 0, 1)]),
            "linux.gidMappings: maps no id to 0, as whom the container is made",
        ),
        (linux(Some(None), vec![range(0, 0, 1); 341], ids), "linux.uidMappings: has more than 340 ranges"),
    ] {
        assert_eq!(errdefs::chain(&UserNamespace::plan(&linux).unwrap_err()), text);
    }
}

#[test]
fn a_map_is_the_same_in_any_order() {
    let text = "         0     100000       1000\n      1000          7          1\n";
    assert!(is_map(text, &[range(1000, 7, 1), range(0, 100_000, 1000)]));
    assert!(!is_map(text, &[range(0, 100_000, 1000)]));
    assert!(!is_map(text, &[range(1000, 8, 1), range(0, 100_000, 1000)]));
    assert!(has_root(text) && !has_root("         1     100000       1000\n"));
}
