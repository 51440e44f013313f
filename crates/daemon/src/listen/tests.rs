use super::*;

#[test]
fn hosts_are_dockers() {
    let parsed = |text| Host::parse(text).map_err(|err| err.to_string());
    let tcp = |text: &str| Ok(Host::Tcp(text.to_owned()));
    assert_eq!(parsed("unix:///run/x.sock"), Ok(Host::Unix("/run/x.sock".into())));
    assert_eq!(parsed("unix://"), Ok(Host::Unix(defaults::SOCKET.into())));
    assert_eq!(parsed("tcp://"), tcp("127.0.0.1:2375"));
    assert_eq!(parsed("tcp://:1234"), tcp("127.0.0.1:1234"));
    assert_eq!(parsed("tcp://0.0.0.0"), tcp("0.0.0.0:2375"));
    assert_eq!(parsed("tcp://[::1]:5"), tcp("[::1]:5"));
    assert_eq!(parsed("tcp://::1"), tcp("[::1]:2375"));
    assert_eq!(parsed("1.2.3.4:5"), tcp("1.2.3.4:5"));
    assert_eq!(parsed("fd://"), Ok(Host::Systemd(None)));
    assert_eq!(parsed("fd://4"), Ok(Host::Systemd(Some(4))));
    for (bad, wanted) in [
        ("foo://x", "invalid bind address (foo://x): unsupported proto 'foo'"),
        ("unix://relative", "invalid bind address (unix://relative)"),
        ("tcp://x:port", "invalid bind address (tcp://x:port)"),
        ("fd://name", "invalid bind address (fd://name)"),
    ] {
        assert_eq!(parsed(bad), Err(wanted.to_owned()));
    }
}

#[test]
fn groups_are_found_by_name() {
    let groups = "root:x:0:\ndocker:x:993:a,b\nbroken\n";
    assert_eq!(find_group(groups, "docker"), Some(993));
    assert_eq!(find_group(groups, "broken"), None);
    assert_eq!(find_group(groups, "none"), None);
    assert_eq!(default_group(groups), "docker");
    assert_eq!(default_group("root:x:0:\nlongshore:x:5:"), "longshore");
    assert_eq!(default_group("root:x:0:"), "root");
}

#[test]
fn privileged_sockets_are_made_whole_and_stale_ones_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(90)).join("e".repeat(90));
    let path = deep.join("api.sock");
    let group = Some("0");
    let first = listen_unix(&path, group).unwrap();
    let meta = fs::symlink_metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.uid(), meta.gid()), (SOCKET_MODE, 0, 0));
    assert!(matches!(listen_unix(&path, group), Err(ListenError::InUse { .. })));
    drop(first.listener);
    let second = listen_unix(&path, group).unwrap();
    // The first daemon's file is gone already: removing it must not remove the second's.
    first.file.unwrap().remove().unwrap();
    assert!(path.exists());
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
    second.file.unwrap().remove().unwrap();
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
}

#[test]
fn privileged_a_file_that_is_no_socket_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(listen_unix(&path, Some("0")), Err(ListenError::NoSocket { .. })));
    assert!(matches!(listen_unix(&path, Some("no-such-group")), Err(ListenError::NoGroup(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn privileged_a_hidden_socket_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let socket = listen_unix(&path, Some("0")).unwrap();
    let file = socket.file.unwrap();
    file.hide().unwrap();
    assert!(!path.exists());
    file.restore().unwrap();
    UnixStream::connect(&path).unwrap();
    file.hide().unwrap();
    file.remove().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn privileged_a_socket_that_cannot_have_its_place_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // A directory cannot be replaced: the last step fails, as the first does for who may not give files away.
    fs::create_dir(dir.path().join("api.sock")).unwrap();
    bind(dir.path(), OsStr::new("api.sock"), 0).unwrap_err();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["api.sock"]);
}
