use super::*;

fn message(result: Result<Choice, DriverError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn what_cannot_be_had_is_refused_in_docker_s_words() {
    let dir = tempfile::tempdir().unwrap();
    let gone = |name: &str| {
        format!(
            "error initializing graphdriver: [graphdriver] ERROR: the {name} storage-driver has been deprecated and removed; \
             visit https://docs.docker.com/go/storage-driver/ for more information: {name}"
        )
    };
    for name in ["aufs", "devicemapper", "overlay"] {
        assert_eq!(message(choose(dir.path(), Some(name))), gone(name));
    }
    assert_eq!(
        message(choose(dir.path(), Some("zfs"))),
        "error initializing graphdriver: prerequisites for driver not satisfied (wrong filesystem?): zfs"
    );
    for name in ["nothing", "Overlay2", "overlay2 ", "../vfs"] {
        let told = message(choose(dir.path(), Some(name)));
        assert_eq!(told, format!("error initializing graphdriver: driver not supported: {name}"));
    }
}

/// Leaves there what a container of that driver leaves.
fn use_driver(root: &Path, driver: Driver) {
    let at = driver.root(root).join("snapshots/c/key");
    fs::create_dir_all(at).unwrap();
}

#[test]
fn who_has_images_here_is_taken_and_vfs_is_never_found() {
    let dir = tempfile::tempdir().unwrap();
    use_driver(dir.path(), Driver::Vfs);
    use_driver(dir.path(), Driver::Overlay2);
    let choice = choose(dir.path(), None).unwrap();
    assert_eq!((choice.driver, choice.root.as_path()), (Driver::Overlay2, dir.path()));
    let choice = choose(dir.path(), Some("vfs")).unwrap();
    assert_eq!((choice.driver, choice.root), (Driver::Vfs, dir.path().join("drivers/vfs")));
    use_driver(dir.path(), Driver::Btrfs);
    let root = dir.path().display();
    assert_eq!(
        message(choose(dir.path(), None)),
        format!(
            "error initializing graphdriver: {root} contains several valid graphdrivers: overlay2, btrfs; cleanup or \
             explicitly choose storage driver (-s <DRIVER>)"
        )
    );
}

#[test]
fn images_of_a_driver_that_does_not_work_here_are_not_passed_over() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    use_driver(dir.path(), Driver::Btrfs);
    let told = message(choose(dir.path(), None));
    assert!(told.contains("prerequisites for driver not satisfied (wrong filesystem?): btrfs"), "{told}");
}

#[test]
fn privileged_overlay2_is_the_best_and_what_is_none_of_it_s_is_passed_over() {
    if testkit::skip::without_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let choice = choose(dir.path(), None).unwrap();
    assert_eq!((choice.driver, choice.passed_over.len()), (Driver::Overlay2, 0));
    // Nothing of the trial stays.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // procfs takes no directories at all.
    let choice = choose(Path::new("/proc/self"), None).unwrap();
    assert_eq!(choice.driver, Driver::Vfs);
    let passed_over: Vec<Driver> = choice.passed_over.iter().map(|(driver, _)| *driver).collect();
    assert_eq!(passed_over, [Driver::Overlay2, Driver::FuseOverlayfs, Driver::Btrfs]);
    assert!(message(choose(Path::new("/proc/self"), Some("overlay2"))).contains("driver not supported: overlay2"));
}
